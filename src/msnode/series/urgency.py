"""Which studies are read before the others: rules on the calling AE title and on header values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.multival import MultiValue
from pydicom.tag import Tag

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pydicom import Dataset


@dataclass(frozen=True)
class UrgencyRule:
    """A study that satisfies every condition given is urgent.

    Attributes:
        calling_ae: some association that brought it was opened under this AE title.
        tag: attribute by keyword, or by eight hexadecimal digits (00401003).
        value: what that attribute has to be in some series, letter case aside; of several values any one.
    """

    calling_ae: str | None = None
    tag: str | None = None
    value: str | None = None


def is_urgent(rules: Iterable[UrgencyRule], calling_aes: Collection[str], headers: Sequence[Dataset]) -> bool:
    """Whether some rule is satisfied.

    Args:
        rules: tried in order.
        calling_aes: AE titles under which the study was sent.
        headers: one a series.
    """
    return any(_satisfied(rule, calling_aes, headers) for rule in rules)


def _satisfied(rule: UrgencyRule, calling_aes: Collection[str], headers: Sequence[Dataset]) -> bool:
    if rule.calling_ae is not None and rule.calling_ae not in calling_aes:
        return False
    if rule.tag is None or rule.value is None:
        return True
    wanted = rule.value.strip().lower()
    return any(wanted in _values(header, rule.tag) for header in headers)


def _values(header: Dataset, tag: str) -> set[str]:
    """The attribute's values as text; nothing where it is absent or malformed."""
    try:
        element = header.get(Tag(tag))
        value = None if element is None else element.value
    except (ValueError, TypeError, OverflowError, NotImplementedError):
        return set()
    if value is None:
        return set()
    several = value if isinstance(value, MultiValue) else [value]
    return {str(each).strip().lower() for each in several}
