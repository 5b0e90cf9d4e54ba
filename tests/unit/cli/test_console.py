import io
from pathlib import Path

import pytest
from rich.table import Table

from msnode import cli
from msnode.cli.console import SafeConsole
from msnode.cli.output import fail, print_json


@pytest.fixture
def console():
    console = SafeConsole()
    console.file = io.StringIO()
    return console


def test_text_holds_no_markup(console):
    table = Table("modality", "[red]note[/red]", box=None)
    table.add_row("[/]", "[bold")
    console.print(table)
    console.print("MR[/dim] :smile:")
    shown = console.file.getvalue()
    assert all(part in shown for part in ("[/]", "[bold", "[red]note[/red]", "MR[/dim] :smile:"))


def test_terminal_commands_are_shown_and_not_sent(console):
    table = Table("note", box=None)
    table.add_row("\x1b]0;title\x07")
    console.print(table)
    console.print("\x1b[2J")
    assert "\x1b" not in console.file.getvalue()
    assert "\\x1b[2J" in console.file.getvalue()


def test_errors_and_json_hold_none_either(capsys):
    fail("refused by \x1b[31mPACS\x9b0m", code=1)
    print_json({"note": "\x1b[2J\x9b é"})
    shown = capsys.readouterr()
    assert shown.err == "msnode: refused by \\x1b[31mPACS\\x9b0m\n"
    assert shown.out.isascii()
    assert "\x1b" not in shown.out


def test_commands_print_strings_alone():
    """What is already `Text` does not pass the console's escapes."""
    folder = Path(cli.__file__).parent
    assert [p.name for p in folder.glob("*.py") if "from rich.text" in p.read_text()] == ["console.py"]
