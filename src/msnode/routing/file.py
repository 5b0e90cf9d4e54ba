"""`routing.toml` → rules. A wrong file is refused at start with everything that is wrong, by line."""

from __future__ import annotations

import re
import tomllib
from datetime import time
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydicom.datadict import dictionary_VR, tag_for_keyword

from msnode.errors import ConfigurationError
from msnode.routing.rules import WEEKDAYS, CallingAe, Condition, LocalTime, Rule, Shape, Tag
from msnode.settings import AeTitle, Preset  # noqa: TC001 - pydantic reads annotations at run time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from pydantic import ValidationInfo

_T = TypeVar("_T")
_Place = tuple[str | int, ...]
_Problem = tuple[_Place, str]


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


_OneOrMore = Annotated[tuple[_T, ...], BeforeValidator(_as_list), Field(min_length=1)]
_PRIVATE = re.compile(r"[0-9A-Fa-f]{8}")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Geometry(_Table):
    plane: Literal["axial", "sagittal", "coronal", "oblique"] | None = None
    acquisition: Literal["2d", "3d"] | None = None
    min_slices: int | None = Field(default=None, ge=1)
    min_slice_distance_mm: float | None = Field(default=None, gt=0)
    max_slice_distance_mm: float | None = Field(default=None, gt=0)


class _Time(_Table):
    hours: str | None = None
    weekdays: _OneOrMore[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] | None = None

    @field_validator("hours")
    @classmethod
    def _is_a_window(cls, value: str | None) -> str | None:
        if value is not None:
            _window(value)
        return value


class _When(_Table):
    calling_ae: _OneOrMore[AeTitle] | None = None
    tags: dict[str, _OneOrMore[str]] = {}
    geometry: _Geometry | None = None
    time: _Time | None = None

    @field_validator("tags")
    @classmethod
    def _are_attributes(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in value:
            tag = int(name, 16) if _PRIVATE.fullmatch(name) else tag_for_keyword(name)
            if tag is None:
                raise ValueError(f"{name} is neither a keyword of DICOM nor eight hexadecimal digits")
            if _vr(tag) == "SQ":
                raise ValueError(f"{name} is a sequence, which has no value to compare")
        return value


class _Rule(_Table):
    name: Annotated[
        str, Field(max_length=64, pattern=r"^[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$")
    ]
    when: _When = _When()
    read: bool | None = Field(default=None, strict=True)
    bundle: str | None = Field(default=None, min_length=1)
    preset: Preset | None = None
    priority: Literal["stat", "routine"] | None = None
    destinations: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @field_validator("destinations")
    @classmethod
    def _are_configured(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        known = _context(info)["destinations"]
        for name in value or ():
            if name not in known:
                there = ", ".join(sorted(known)) or "none"
                raise ValueError(f"no destination {name!r} is configured; there is: {there}")
        return value

    @field_validator("bundle")
    @classmethod
    def _is_there(cls, value: str | None, info: ValidationInfo) -> str | None:
        problem = _context(info)["bundle_problem"](value) if value else ""
        if problem:
            raise ValueError(problem)
        return value

    def conditions(self) -> Iterator[Condition]:
        """Those that need no header first, then those that need one a series, then those that need all."""
        when = self.when
        if when.calling_ae:
            yield CallingAe(when.calling_ae)
        if when.time is not None:
            days = frozenset(WEEKDAYS.index(day) for day in when.time.weekdays or ())
            yield LocalTime(_window(when.time.hours) if when.time.hours else None, days)
        for name, values in when.tags.items():
            yield Tag(name, values)
        if when.geometry is not None and when.geometry != _Geometry():
            yield Shape(**when.geometry.model_dump())

    def rule(self) -> Rule:
        """As the router wants it."""
        return Rule(
            name=self.name,
            when=tuple(self.conditions()),
            read=self.read,
            bundle=self.bundle,
            preset=self.preset,
            urgent=self.priority == "stat",
            destinations=self.destinations,
        )


def read_rules(
    path: Path, destinations: Collection[str], bundle_problem: Callable[[str], str] = lambda _: ""
) -> tuple[Rule, ...]:
    """The rules of a file, in order.

    Args:
        path: TOML with `[[rules]]`; see `config/routing.toml`.
        destinations: names of those that are configured.
        bundle_problem: says why a bundle that a rule names cannot be used; empty where it can.

    Raises:
        ConfigurationError: the file is absent or no TOML, or something in it is wrong; the message names the
            file, and line and key of everything that is.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    context = {"destinations": frozenset(destinations), "bundle_problem": bundle_problem}
    rules, problems = _rules(values, context)
    if problems:
        lines = _Lines(text)
        placed = sorted((lines.of(place), _said(place, what)) for place, what in problems)
        raise ConfigurationError(f"{path}: " + "; ".join(f"line {n}: {said}" for n, said in placed))
    return rules


def _rules(values: Mapping[str, Any], context: Mapping[str, Any]) -> tuple[tuple[Rule, ...], list[_Problem]]:
    problems: list[_Problem] = [((key,), "unknown key") for key in values if key != "rules"]
    tables = values.get("rules", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        return (), [*problems, (("rules",), "each rule is a table of its own, [[rules]]")]
    rules = []
    for number, table in enumerate(tables):
        problems += [(("rules", number, *place), what) for place, what in _at_odds(table)]
        try:
            rules.append(_Rule.model_validate(table, context=context).rule())
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                what = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
                problems.append((("rules", number, *item["loc"]), what))
    return tuple(rules), problems + _between_rules(tables)


def _at_odds(table: Mapping[str, Any]) -> Iterator[_Problem]:
    """What within one rule contradicts itself."""
    if table.get("read") is False:
        for key in ("bundle", "preset", "priority", "destinations"):
            if key in table:
                yield (key,), "a study that is not read has no use for it"
    when = table.get("when")
    shape = when.get("geometry") if isinstance(when, dict) else None
    if isinstance(shape, dict):
        least, most = shape.get("min_slice_distance_mm"), shape.get("max_slice_distance_mm")
        if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
            yield ("when", "geometry", "min_slice_distance_mm"), f"{least} is more than the greatest, {most}"


def _between_rules(tables: list[dict[str, Any]]) -> list[_Problem]:
    """Names given twice, and rules that come after one that takes every study."""
    problems: list[_Problem] = []
    names: set[object] = set()
    takes_all = ""
    for number, table in enumerate(tables):
        name = str(table.get("name", ""))
        if name and name in names:
            problems.append((("rules", number, "name"), f"an earlier rule is named {name!r} too"))
        names.add(name)
        if takes_all:
            what = f"can never be reached: the rule {takes_all!r} before it has no condition"
            problems.append((("rules", number), what))
        elif not any(_conditions(table.get("when"))):
            takes_all = name or f"number {number + 1}"
    return problems


def _conditions(when: object) -> list[object]:
    return list(when.values()) if isinstance(when, dict) else [when]


def _window(text: str) -> tuple[time, time]:
    found = _HOURS.fullmatch(text)
    if found is None:
        raise ValueError('hours are "HH:MM-HH:MM", local time, from 00:00 to 23:59')
    begin_h, begin_m, end_h, end_m = map(int, found.groups())
    begin, end = time(begin_h, begin_m), time(end_h, end_m)
    if begin == end:
        raise ValueError("begin and end are the same; for the whole day leave hours out")
    return begin, end


def _context(info: ValidationInfo) -> Mapping[str, Any]:
    return info.context or {}


def _vr(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def _said(place: _Place, what: str) -> str:
    key = ".".join(f"{part + 1}" if isinstance(part, int) else part for part in place)
    return f"{key}: {what.removeprefix('Value error, ')}"


class _Lines:
    """Where keys stand in a TOML file, which the parser does not say.

    What stands within an inline table, or in a string of several lines, is found by the key that begins it.
    """

    _KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
    _TABLE = re.compile(rf"\s*(\[\[?)\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*\]")
    _VALUE = re.compile(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=")

    def __init__(self, text: str) -> None:
        self._first: dict[_Place, int] = {}
        table: _Place = ()
        count = 0
        for number, line in enumerate(text.splitlines(), 1):
            found = self._TABLE.match(line)
            if found:
                names = self._parts(found[2])
                count += found[1] == "[[" and names == ("rules",)
                table = ("rules", count - 1, *names[1:]) if names[0] == "rules" else names
                self._first.setdefault(table, number)
            elif value := self._VALUE.match(line):
                self._first.setdefault((*table, *self._parts(value[1])), number)

    def of(self, place: _Place) -> int:
        """The line of the key, or of the nearest table around it."""
        while place and place not in self._first:
            place = place[:-1]
        return self._first.get(place, 1)

    def _parts(self, dotted: str) -> _Place:
        return tuple(part.strip("\"'") for part in re.findall(self._KEY, dotted))
