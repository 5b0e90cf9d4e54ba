"""Whether what a page below deploy/docs says of commands, settings, states, files and log events is so."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from msnode.record.delivery import DeliveryState
from msnode.record.job import JobState
from msnode.settings import Settings
from support.deployment import units
from support.deployment_rules import command_problem
from support.environment import ROOT

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_UNIT = re.compile(r"\bmsnode-[a-z]+@|\bmsnode\.(?:service|target)\b")


def guide_problems(page: Path, text: str) -> list[str]:
    """Everything that is wrong with `text`, were it the content of `page`."""
    found = [*_commands(text), *_settings(text), *_states(text), *_events(text), *_links(page, text)]
    return [f"{page.name}: {problem}" for problem in found]


def command_lines(text: str) -> Iterator[str]:
    """What stands in code: every line of a block, and every span of a paragraph."""
    for language, block in _BLOCK.findall(text):
        if not language:
            yield from block.splitlines()
    for span in re.findall(r"`([^`]+)`", _BLOCK.sub("", text)):
        yield " ".join(span.split())


def msnode_arguments(line: str) -> list[str] | None:
    """What follows `msnode` where the line calls it; None where it does not."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return None
    for place, word in enumerate(words):
        before = tuple(words[:place])
        called = before in {(), ("sudo",)} or before[-1:] == ("--",)
        called = called or (before[:2] == ("docker", "compose") and "exec" in before and before[-1] != "-f")
        if word.rsplit("/", 1)[-1] == "msnode" and called:
            return words[place + 1 :] or None
    return None


def _commands(text: str) -> Iterator[str]:
    for line in command_lines(text):
        arguments = msnode_arguments(line)
        problem = command_problem(arguments) if arguments else None
        if problem:
            yield f"{line!r}: {problem}"


def _settings(text: str) -> Iterator[str]:
    sections = {
        name: set(getattr(f.annotation, "model_fields", {})) for name, f in Settings.model_fields.items()
    }
    names = "|".join(sections)
    for section, key in set(re.findall(rf"`(?:\[\[)?({names})\.(\w+)", text)):
        if key not in sections[section]:
            yield f"{section}.{key} is no setting"
    for language, block in _BLOCK.findall(text):
        if language == "toml":
            try:
                Settings(**tomllib.loads(block))
            except (tomllib.TOMLDecodeError, ValidationError) as error:
                yield f"a configuration that is refused: {error}"


def _states(text: str) -> Iterator[str]:
    tables = re.findall(r"^\| state \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    for states, table in zip((JobState, DeliveryState), tables, strict=False):
        named = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
        if sorted(named) != sorted(states):
            yield f"{states.__name__} are {sorted(states)}, the table has {sorted(named)}"


@cache
def _source() -> str:
    return "\n".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))


def _events(text: str) -> Iterator[str]:
    for table in re.findall(r"^\| event in the log \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        for row in table.splitlines():
            for event in re.findall(r"`([^`]+)`", row.split("|")[1]):
                if f'"{event}"' not in _source():
                    yield f"nothing logs {event!r}"


def _links(page: Path, text: str) -> Iterator[str]:
    headings = {_anchor(h) for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            if target[1:] not in headings:
                yield f"there is no heading {target}"
        elif "://" not in target and not (page.parent / target).exists():
            yield f"there is no {target}"
    for name in re.findall(r"\bdeploy/[\w./@-]*[\w*]", text):
        written_by_the_reader = name == "deploy/kubernetes/secret.yaml" or name.startswith("deploy/msnode-")
        if not written_by_the_reader and not list(ROOT.glob(name)):
            yield f"there is no {name}"
    known = units(ROOT / "deploy")
    for unit in set(_UNIT.findall(text)):
        if unit not in known and f"{unit}.service" not in known:
            yield f"there is no unit {unit}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
