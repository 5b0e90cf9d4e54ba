"""The architecture page names rooms and functions that are there."""

import ast
import itertools
import re
from pathlib import Path

import pytest

from support.environment import ROOT

PAGE = (ROOT / "deploy" / "docs" / "architecture.md").read_text()
SOURCE = ROOT / "src" / "msnode"
NAMED = re.compile(r"\b([a-z_]+(?:/[a-z_]+)*):([A-Za-z_]\w*(?:\.\w+)*)")


def tree_of(module: str) -> ast.Module | None:
    for path in (SOURCE / f"{module}.py", SOURCE / module / "__init__.py"):
        if path.exists():
            return ast.parse(path.read_text())
    return None


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a module or class defines or imports."""
    found: dict[str, ast.stmt] = {}
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.ClassDef():
                found[statement.name] = statement
            case ast.ImportFrom():
                found |= {alias.asname or alias.name: statement for alias in statement.names}
            case ast.Assign() | ast.AnnAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                found |= {t.id: statement for t in targets if isinstance(t, ast.Name)}
    return found


def is_there(module: str, name: str) -> bool:
    node = tree_of(module)
    for part in name.split("."):
        if not isinstance(node, ast.Module | ast.ClassDef):
            return False
        node = names_in(node.body).get(part)
    return node is not None


def test_functions_are_there():
    named = {f"{module}:{name}" for module, name in NAMED.findall(PAGE)}
    assert len(named) > 40
    assert {each for each in named if not is_there(*each.split(":"))} == set()


def test_the_tree_has_every_room():
    (tree,) = re.findall(r"^src/msnode/\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    drawn = set(re.findall(r"^  (\w+)", tree, re.MULTILINE))
    rooms = {p.stem for p in SOURCE.glob("*.py")} | {p.parent.name for p in SOURCE.glob("*/__init__.py")}
    assert drawn == rooms - {"__init__", "__main__", "bundles"}


def layers_of(text: str) -> dict[str, int]:
    """Room → number of its line."""
    return {room: n for n, line in enumerate(text.splitlines()) for room in re.findall(r"\w+", line)}


def test_the_layers_do_not_contradict_the_contract():
    (page,) = re.findall(r"^```text\n(cli\n.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    (contract,) = re.findall(r"layers = \[\n(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    drawn, checked = layers_of(page), layers_of(contract.replace("msnode.", ""))
    assert drawn.keys() == checked.keys()
    pairs = list(itertools.combinations(checked, 2))
    assert [(a, b) for a, b in pairs if (drawn[a] - drawn[b]) * (checked[a] - checked[b]) < 0] == []


@pytest.mark.parametrize("path", re.findall(r"`((?:\w+/)+\w+\.(?:py|csv|toml)|\w+\.py)`", PAGE))
def test_files_are_there(path):
    assert (SOURCE / path).exists() or (ROOT / path).exists() or Path(path).name == "msnode.toml"
