"""Commands are listed without being imported, and import no more than they need."""

import inspect
import json
import subprocess
import sys

import pytest
import typer.main
from typer.testing import CliRunner

from msnode.cli import app, lazy
from msnode.errors import ConfigurationError
from msnode.record.database import upgrade

_HEAVY = {
    "SimpleITK", "alembic", "dbos", "highdicom", "numpy", "openvino", "pydantic", "pydicom", "pynetdicom",
    "scipy", "sqlalchemy", "structlog", "torch",
}  # fmt: skip
_RUN = """\
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from msnode.cli import main
main()
"""


def imported(*arguments):
    """Every module that a command has imported at its end."""
    command = [sys.executable, "-c", _RUN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.splitlines()[-1].split())


@pytest.fixture
def config(tmp_path):
    """The configuration of a node that has a record."""
    path = tmp_path / "msnode.toml"
    path.write_text(f"[node]\ndata_dir = {json.dumps(str(tmp_path))}\n")
    upgrade(f"sqlite:///{tmp_path}/msnode.db")
    return path


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["jobs", "--help"], ["model", "--help"]], ids=" ".join
)
def test_help_and_version_import_no_command(arguments):
    modules = imported(*arguments)
    assert {m for m in modules if m.startswith("msnode.")} == {
        "msnode.cli", "msnode.cli.lazy", "msnode.cli.output", "msnode.domain", "msnode.domain.text",
        "msnode.errors", "msnode.process",
    }  # fmt: skip
    # Typer checks the arguments of a group with pydantic
    assert modules & _HEAVY <= (set() if len(arguments) == 1 else {"pydantic"})


@pytest.mark.parametrize("command", [["jobs", "list"], ["status"]], ids=" ".join)
def test_commands_that_read_the_record_import_settings_and_database_alone(config, command):
    modules = imported(*command, "--config", config, "--json")
    assert modules & _HEAVY == {"pydantic", "sqlalchemy"}


def test_config_show_needs_no_database():
    assert imported("config", "show") & _HEAVY == {"pydantic"}


@pytest.mark.parametrize("path", lazy.COMMANDS)
def test_a_command_is_listed_with_the_first_paragraph_of_its_help(path):
    entry = lazy.COMMANDS[path]
    command = lazy.LazyCommand(path.rpartition(" ")[2], entry).load()
    assert entry.help == " ".join(inspect.cleandoc(command.help).split("\n\n")[0].split())


def test_the_help_lists_every_command_under_its_group():
    root = typer.main.get_command(app)
    for path, entry in lazy.COMMANDS.items():
        group, _, name = path.rpartition(" ")
        shown = CliRunner().invoke(app, [*group.split(), "--help"], env={"COLUMNS": "200"}).stdout
        assert entry.help in shown
        commands = root.commands[group].commands if group else root.commands
        assert name in commands
    assert list(lazy.GROUPS) == [n for n, c in root.commands.items() if not isinstance(c, lazy.LazyCommand)]


def test_a_package_that_is_missing_is_named(monkeypatch):
    command = lazy.LazyCommand("export", lazy.COMMANDS["model export"])

    def missing(name):
        def load(_):
            raise ModuleNotFoundError(name=name)

        return load

    monkeypatch.setattr(lazy, "import_module", missing("torch"))
    with pytest.raises(ConfigurationError, match=r"package torch: pip install 'msnode\[gpu\]'"):
        command.load()
    monkeypatch.setattr(lazy, "import_module", missing("pydicom"))
    with pytest.raises(ConfigurationError, match="package pydicom: the installation is incomplete"):
        command.load()
    monkeypatch.setattr(lazy, "import_module", missing("msnode.train.export"))
    with pytest.raises(ModuleNotFoundError):
        command.load()
