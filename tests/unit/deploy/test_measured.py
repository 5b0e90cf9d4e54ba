"""The page of figures has a place for each benchmark, and a benchmark replaces its own section alone."""

import re

import pytest

import msnode
from benchmarks.measured import PAGE, replace_section, section
from support.environment import ROOT

BENCHMARKS = ROOT / "tests" / "benchmarks"
TWO = """# Measured

<!-- bench a -->
old a
<!-- end a -->

By hand.

<!-- bench b -->
old b
<!-- end b -->
"""
SECTION = re.compile(r"<!-- bench (\w+) -->\n(.*?)<!-- end \1 -->", re.DOTALL)
ORIGIN = re.compile(r"\*With msnode \d+\.\d+\.\d+, .*`make bench BENCH=\w+`\*|\*Not .*\*")


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("bench_*.py")), ids=lambda path: path.stem)
def test_a_benchmark_has_one_section(path):
    name, text = path.stem.removeprefix("bench_"), PAGE.read_text()
    assert text.count(f"<!-- bench {name} -->\n") == 1
    assert text.count(f"<!-- end {name} -->\n") == 1


def test_every_section_says_what_was_measured():
    for name, content in SECTION.findall(PAGE.read_text()):
        assert ORIGIN.fullmatch(content.splitlines()[0]), name


def test_only_the_named_section_is_replaced():
    assert replace_section(TWO, "a", "new\n\n| a | \\1 |") == TWO.replace("old a", "new\n\n| a | \\1 |")


def test_a_benchmark_without_a_section_gets_one_at_the_end():
    page = replace_section(TWO, "c", "new")
    assert page == f"{TWO}\n## C\n\n<!-- bench c -->\nnew\n<!-- end c -->\n"
    assert replace_section(page, "c", "newer") == page.replace("new\n", "newer\n")


def test_a_section_names_version_machine_and_command():
    origin, empty, figures = section("receive", "2026-11-28, 2 cores", "\n| a |\n").splitlines()
    assert origin == f"*With msnode {msnode.__version__}, 2026-11-28, 2 cores: `make bench BENCH=receive`*"
    assert ORIGIN.fullmatch(origin)
    assert (empty, figures) == ("", "| a |")
