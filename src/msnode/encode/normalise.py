"""A header as it should be: what results inherit from a source, whatever its defects.

Real headers lack attributes that the standard requires, hold values that it forbids, and come in many
character sets. Results copy the identity of patient and study unchanged where it is legal; what is
illegal is emptied and named, so that no defect outside geometry can fail a job.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydicom import config, dcmwrite
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import DA, DT, TM

from msnode.dicom.character_sets import declares_nothing, storable, undefined_terms
from msnode.dicom.header import MALFORMED, patient_key, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUIRED_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Type 2 attributes of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1)."""

INHERITED = (
    *REQUIRED_EMPTY,
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "TimezoneOffsetFromUTC",
    "RequestAttributesSequence",
    # the rest of the Patient module (PS3.3 C.7.1.1)
    "ReferencedPatientSequence",
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "SourcePatientGroupIdentificationSequence",
    "GroupOfPatientsIdentificationSequence",
    "PatientBirthTime",
    "PatientBirthDateInAlternativeCalendar",
    "PatientDeathDateInAlternativeCalendar",
    "PatientAlternativeCalendar",
    "QualityControlSubject",
    "OtherPatientIDs",
    "OtherPatientNames",
    "OtherPatientIDsSequence",
    "ReferencedPatientPhotoSequence",
    "EthnicGroup",
    "EthnicGroupCodeSequence",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "StrainDescription",
    "StrainNomenclature",
    "StrainStockSequence",
    "StrainAdditionalInformation",
    "StrainCodeSequence",
    "GeneticModificationsSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientComments",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
)
"""Attributes that every result object copies from its source: who the patient is, and which study and order
it was. Another value of one of them is a changed identity, and results under the old one are wrong."""

_KEPT_THOUGH_ILLEGAL = {"StudyInstanceUID", "FrameOfReferenceUID"}
"""References must name what the source names, legal or not, as long as it can be written."""

_PATTERNS = {
    "CS": re.compile(r"[A-Z0-9 _]{0,16}"),
    "AS": re.compile(r"(\d{3}[DWMY])?"),
    "UI": re.compile(r"(?=.{0,64}\Z)((0|[1-9]\d*)(\.(0|[1-9]\d*))*)?"),
    "DA": re.compile(r"(\d{8})?"),
    "TM": re.compile(r"(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?"),
    "DT": re.compile(r"(\d{4}(\d{2}(\d{2}(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?)?"),
    "IS": re.compile(r"([+-]?\d{1,11})?"),
    "DS": re.compile(r"([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)?"),
}
"""Values that are legal in an object. pydicom's own checks also take a query's range for a date or time."""
_CHARACTER_SET = "Specific Character Set (0008,0005)"
_LATIN_1 = {"ISO_IR 100", "ISO 2022 IR 100"}
_BEYOND_EUROPE, _THREE_BYTES = "\u0180", "\u0800"
"""After Latin Extended-A; the first character that takes three bytes in UTF-8."""
_IN_LATIN_1, _C1, _REPLACEMENT = ("\u00a0", "\u00ff"), ("\u0080", "\u009f"), "\ufffd"
_CHINESE_ESCAPE = "\x1b$)A"
"""Of ISO 2022 IR 58: pydicom leaves it in the text."""
_CLOCK_TYPES = {"DA": DA, "TM": TM, "DT": DT}
_ENUMERATED = {
    "PatientSex": re.compile(r"[MFO]?"),
    "TimezoneOffsetFromUTC": re.compile(r"((-(0\d|1[0-2])|\+(0\d|1[0-4]))[0-5]\d)?"),
}
_TEXT_VRS = {"PN", "LO", "SH", "LT", "ST", "UT", "UC", "UR"}


@dataclass(frozen=True, eq=False)
class NormalisedHeader:
    """What every result inherits from its source.

    Attributes:
        dataset: the attributes of `INHERITED` that the source has, decoded, with the type 2 ones present;
            Specific Character Set is ISO_IR 192.
        defects: what was wrong and what was done, by keyword and tag; never a value.
    """

    dataset: Dataset
    defects: tuple[str, ...]

    @property
    def patient_key(self) -> tuple[str, str]:
        """(issuer of patient ID, patient ID)."""
        return patient_key(self.dataset)

    @cached_property
    def identity_digest(self) -> str:
        """SHA-256 over what is inherited: where it is equal, results under one identity serve the other."""
        buffer = BytesIO()
        with tolerant_values():
            dcmwrite(buffer, self.dataset, implicit_vr=False, little_endian=True)
        return hashlib.sha256(buffer.getvalue()).hexdigest()


@contextmanager
def tolerant_values() -> Iterator[None]:
    """Inside, pydicom takes values as they are: what may stay was decided by `normalise`.

    Otherwise an accession number of 17 characters would raise or print a warning with its value.
    """
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def normalise(header: Dataset) -> NormalisedHeader:
    """A clean copy of what results inherit from `header`, which stays as it is.

    Private elements inside inherited sequences are left out. Text is never shortened.

    Args:
        header: any instance's data set; nothing is required of it.

    Returns:
        The inherited attributes and the list of defects.
    """
    clean = Dataset()
    clean.SpecificCharacterSet = "ISO_IR 192"
    defects: list[str] = []
    with tolerant_values(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for keyword in INHERITED:
            tag = Tag(tag_for_keyword(keyword) or 0)
            if tag in header:
                _copy(header, tag, clean, defects, at_root=True)
            if keyword in REQUIRED_EMPTY and tag not in clean:
                clean.add(DataElement(tag, dictionary_VR(tag), None))
                if tag not in header:
                    defects.append(f"{_name(tag)} is missing: written empty")
        declared = texts(header, "SpecificCharacterSet")
        if undefined_terms(declared):
            defects.append(f"{_CHARACTER_SET} is not a defined term")
        defects += _mend(clean, declared)
    if any("decode" in str(w.message) or "encoding" in str(w.message) for w in caught):
        defects.append(f"text does not fit the declared {_CHARACTER_SET}: decoded in part")
    return NormalisedHeader(dataset=clean, defects=tuple(defects))


def _mend(clean: Dataset, declared: tuple[str, ...]) -> list[str]:
    """Mend text that pydicom decoded amiss, where the right text is certain; name what is doubtful.

    Where the header does not account for bytes beyond ASCII, pydicom takes them for Latin-1; text that makes
    sense in UTF-8 makes none in Latin-1.

    Returns:
        Defects.
    """
    latin_1 = bool(declared) and declared[0].strip() in _LATIN_1
    read_again = latin_1 or declares_nothing(declared)
    ascii_only = all(declares_nothing((each,)) for each in declared)
    mended = doubtful = False
    for element in clean.iterall():
        if element.VR not in _TEXT_VRS or not element.value:
            continue
        many = isinstance(element.value, MultiValue)
        given = [str(v) for v in (element.value if many else [element.value])]
        read = [_read_again(text) for text in given] if read_again else given
        mended = mended or read != given
        better = [text.replace(_CHINESE_ESCAPE, "") for text in read]
        doubtful = doubtful or any(
            a == b and _is_doubtful(a, ascii_only=ascii_only) for a, b in zip(given, better, strict=True)
        )
        if better != given:
            element.value = better if many else better[0]
    defects = []
    if mended:
        defects.append(f"text beyond {_CHARACTER_SET}: read as UTF-8")
    if doubtful:
        defects.append(f"text does not fit {_CHARACTER_SET} and may be wrong: kept as it was read")
    return defects


def _read_again(text: str) -> str:
    """The UTF-8 that was taken for Latin-1, where it can be nothing else.

    Certain are letters of Europe, two letters of any other script, and whatever takes three bytes or more.
    """
    try:
        decoded = text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
    beyond = [c for c in decoded if not c.isascii()]
    letters = all(unicodedata.category(c)[0] in "LM" or c >= _THREE_BYTES for c in beyond)
    european = all(c < _BEYOND_EUROPE for c in beyond)
    certain = letters and (european or len(beyond) > 1 or any(c >= _THREE_BYTES for c in beyond))
    return decoded if certain else text


def _is_doubtful(text: str, *, ascii_only: bool) -> bool:
    """Whether text holds characters that nobody declared, or control characters that no text has."""
    if ascii_only and any(_IN_LATIN_1[0] <= c <= _IN_LATIN_1[1] for c in text):
        return True
    return any(_C1[0] <= c <= _C1[1] or c == _REPLACEMENT for c in text)


def legal_value(header: Dataset, keyword: str) -> Any:
    """One attribute's value where it is present and legal, else None."""
    tag = Tag(tag_for_keyword(keyword) or 0)
    clean = Dataset()
    if tag in header:
        _copy(header, tag, clean, [], at_root=True)
    return clean.get(keyword)


def _name(tag: BaseTag) -> str:
    return f"{keyword_for_tag(tag)} ({tag.group:04X},{tag.element:04X})"


def _copy(source: Dataset, tag: BaseTag, target: Dataset, defects: list[str], *, at_root: bool) -> None:
    """Copy one element where its value is legal; note the defect and leave it out or empty where not."""
    keyword = keyword_for_tag(tag)
    vr = dictionary_VR(tag)
    try:
        value = _copied_value(source[tag].value, vr, defects)
    except MALFORMED:
        defects.append(f"{_name(tag)} cannot be read: left out")
        return
    if vr == "SQ" or (_is_legal(value, vr, keyword) and _is_writable(tag, vr, value)):
        target.add(DataElement(tag, vr, value))
    elif at_root and keyword in _KEPT_THOUGH_ILLEGAL and str(value).isascii():
        target.add(DataElement(tag, vr, value))
        defects.append(f"{_name(tag)} is not a legal {vr}: kept, because references need it")
    elif not at_root or keyword in REQUIRED_EMPTY:
        target.add(DataElement(tag, vr, None))
        defects.append(f"{_name(tag)} is not a legal value: emptied")
    else:
        defects.append(f"{_name(tag)} is not a legal value: left out")


def _copied_value(value: Any, vr: str, defects: list[str]) -> Any:
    if vr == "SQ":
        return [_copied_item(item, defects) for item in value]
    if isinstance(value, MultiValue | list | tuple):
        return [_copied_value(v, vr, defects) for v in value]
    if value is None or isinstance(value, bytes) or (vr not in _PATTERNS and vr not in _TEXT_VRS):
        return value
    # str() also makes a person's name forget the bytes of its old character set
    text = storable(str(value))
    return text.strip() if vr in _PATTERNS else text


def _copied_item(item: Dataset, defects: list[str]) -> Dataset:
    clean = Dataset()
    for tag in sorted(item.keys()):
        if not tag.is_private and keyword_for_tag(tag) and tag != Tag("SpecificCharacterSet"):
            _copy(item, tag, clean, defects, at_root=False)
    return clean


def _is_legal(value: Any, vr: str, keyword: str) -> bool:
    if isinstance(value, list):
        return all(_is_legal(v, vr, keyword) for v in value)
    if value is None or (vr not in _PATTERNS and vr not in _TEXT_VRS):
        return True
    if not isinstance(value, str):
        return False
    if keyword in _ENUMERATED:
        return bool(_ENUMERATED[keyword].fullmatch(value))
    return vr in _TEXT_VRS or (bool(_PATTERNS[vr].fullmatch(value)) and _is_on_calendar(value, vr))


def _is_writable(tag: BaseTag, vr: str, value: Any) -> bool:
    """Whether a value is of a type that its value representation has, where no pattern says so."""
    if vr in _PATTERNS or vr in _TEXT_VRS:
        return True
    holder = Dataset()
    try:
        holder.add(DataElement(tag, vr, value))
        dcmwrite(BytesIO(), holder, implicit_vr=False, little_endian=True)
    except MALFORMED:
        return False
    return True


def _is_on_calendar(value: str, vr: str) -> bool:
    """Whether a well-formed date or time exists: 20230231 and 2561 do not."""
    if vr not in _CLOCK_TYPES or not value:
        return True
    try:
        _CLOCK_TYPES[vr](value)
    except ValueError:
        return False
    return True
