"""Whether all images of a study name one patient, before a result joins them.

A merge, a router or a correction that got half way leaves a study under two patients. A result may join
neither then.
"""

from __future__ import annotations

import copy
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING

from msnode.dicom.header import text
from msnode.encode import normalise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydicom import Dataset

    from msnode.domain.imaging import Instance, Series

SEVERAL_PATIENTS = "several patients in one study"
"""How the reason of such a refusal begins."""

_NAMED = {
    "PatientID": "Patient ID (0010,0020)",
    "IssuerOfPatientID": "Issuer of Patient ID (0010,0021)",
    "PatientBirthDate": "Patient's Birth Date (0010,0030)",
    "PatientName": "Patient's Name (0010,0010)",
}
_DATE_DIGITS = 8


def several_patients(study: Sequence[Series]) -> str:
    """Which attributes name more than one patient, as a reason for refusal; empty where none does.

    An absent value contradicts none. Names are compared without case, trailing carets and ideographic groups.
    """
    headers = [instance.header for series in study for instance in series.instances]
    differ = []
    for keyword, name in _NAMED.items():
        written = {text(header, keyword): header for header in headers}
        values = {_compared(keyword, header) for header in written.values()} - {""}
        differ += [name] if len(values) > 1 else []
    if not differ:
        return ""
    return f"{SEVERAL_PATIENTS}: {', '.join(differ)} differ between its images; all must name one patient"


def with_one_identity(study: Sequence[Series]) -> list[Series]:
    """The series of a study of one patient, in which every image states what any of them does."""
    stated: dict[str, Dataset] = {}
    for series in study:
        for instance in series.instances:
            for keyword in _NAMED:
                if text(instance.header, keyword).strip():
                    stated.setdefault(keyword, instance.header)
    completed = []
    for series in study:
        instances = tuple(_completed(instance, stated) for instance in series.instances)
        completed.append(series if instances == series.instances else replace(series, instances=instances))
    return completed


def _completed(instance: Instance, stated: Mapping[str, Dataset]) -> Instance:
    lacking = [keyword for keyword in stated if not text(instance.header, keyword).strip()]
    if not lacking:
        return instance
    header = copy.copy(instance.header)
    for keyword in lacking:
        header[keyword] = stated[keyword][keyword]
    return replace(instance, header=header)


def _compared(keyword: str, header: Dataset) -> str:
    if keyword == "PatientName":
        name = str(normalise(header).dataset.get(keyword) or "")
        components = unicodedata.normalize("NFC", name).split("=")[0].casefold().split("^")
        return "^".join(" ".join(component.split()) for component in components).rstrip("^")
    value = text(header, keyword).strip()
    if keyword == "PatientBirthDate":
        digits = value.replace(".", "")  # as ACR-NEMA wrote dates
        return digits if len(digits) == _DATE_DIGITS and digits.isdecimal() and int(digits) else ""
    return value
