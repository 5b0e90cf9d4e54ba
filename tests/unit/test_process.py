"""What a process does at its start, each in a process of its own."""

import subprocess
import sys

SHOW = """
import resource
from pathlib import Path
from msnode.process import forbid_core_dumps
forbid_core_dumps()
import ctypes
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
PRINT = """
import ctypes, sys
from msnode.process import keep_libraries_off_stderr
keep_libraries_off_stderr()
ctypes.CDLL(None).dprintf(2, b"of a library\\n")
print("of Python", file=sys.stderr)
"""


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment or None
    )


def test_no_core_is_dumped():
    assert run(SHOW).stdout.strip() == "(0, 0) 0"


def test_benchmarks_may_look_inside():
    assert run(SHOW, MSNODE_DUMPABLE="1").stdout.strip().endswith(" 1")


def test_libraries_write_nothing_into_the_log():
    assert run(PRINT).stderr == "of Python\n"


def test_every_command_forbids_core_dumps():
    code = (
        "import sys, resource; sys.argv = ['msnode', '--version']\n"
        "from msnode.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE))"
    )
    assert run(code).stdout.splitlines()[-1] == "(0, 0)"
