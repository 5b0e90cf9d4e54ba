"""Text in every character set, from a source's bytes through every result into an archive and out again.

The sources' text is written as bytes, not by the library that msnode reads with.
"""

import struct
import warnings
from pathlib import Path
from urllib.parse import quote

import pytest

from msnode.encode import ResultRules, to_bytes
from support.dicom_files import flair_series
from support.environment import missing
from support.peers import orthanc, storescu
from support.readings import read

pytestmark = pytest.mark.peer

RULES = ResultRules(kinds=frozenset({"pdf", "sr-comprehensive", "sr-enhanced"}))
MADE = 9
"""Segmentation, three reports, three slices of overlay, summary, PDF."""
TEXTS = ("PatientName", "ReferringPhysicianName", "StudyDescription", "PatientComments")


def iso_2022(code: str, escape: bytes):
    """Encoder of text that falls back to ASCII at every delimiter, as PS3.5 6.1.2.5.3 asks."""

    def encode(text: str) -> bytes:
        written = b""
        for component in text.replace("=", "\0=\0").replace("^", "\0^\0").split("\0"):
            written += component.encode() if component.isascii() else escape + component.encode(code)
        return written

    return encode


def plain(code: str):
    return lambda text: text.encode(code)


def japanese(text: str) -> bytes:
    """Katakana of half width, then kanji and kana by escape; JIS X 0201 in place of ASCII."""
    narrow, *wide = text.split("=")
    encoded = [part.encode("iso2022_jp").replace(b"\x1b(B", b"\x1b(J") for part in wide]
    return b"=".join([narrow.encode("shift_jis"), *encoded])


DECLARED = {
    "japanese": ("\\ISO 2022 IR 87", plain("iso2022_jp"), "Yamamoto^Tarou=山本^太郎=やまもと^たろう"),
    "katakana": ("ISO 2022 IR 13\\ISO 2022 IR 87", japanese, "ﾔﾏﾓﾄ^ﾀﾛｳ=山本^太郎=やまもと^たろう"),
    "korean": (
        "\\ISO 2022 IR 149",
        iso_2022("euc_kr", b"\x1b$)C"),
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "gb2312": ("\\ISO 2022 IR 58", iso_2022("gb2312", b"\x1b$)A"), "Zhang^XiaoDong=张^小东"),
    "gb18030": ("GB18030", plain("gb18030"), "Wang^XiaoDong=王^小东"),
    "gbk": ("GBK", plain("gbk"), "Wang^XiaoDong=王^小东"),
    "cyrillic": ("ISO_IR 144", plain("iso8859_5"), "Соколова^Анна"),
    "latin-1": ("ISO_IR 100", plain("latin_1"), "Müller^Jérôme"),
    "latin-2": ("ISO_IR 101", plain("iso8859_2"), "Dvořák^Jiří"),
    "arabic": ("ISO_IR 127", plain("iso8859_6"), "قباني^لنزار"),
    "greek": ("ISO_IR 126", plain("iso8859_7"), "Διονυσίου^Άννα"),
    "hebrew": ("ISO_IR 138", plain("iso8859_8"), "שרון^דבורה"),
    "thai": ("ISO_IR 166", plain("tis_620"), "นามสกุล^ชื่อ"),
    "utf-8": ("ISO_IR 192", plain("utf_8"), "Ćwikła^Łukasz=王^小东"),
}
UNDECLARED = {
    "latin-1-undeclared": (None, plain("latin_1"), "Müller^Jörg"),
    "utf-8-undeclared": (None, plain("utf_8"), "Müller^Jörg=王^小东"),
    "utf-8-declared-as-ascii": ("ISO_IR 6", plain("utf_8"), "Соколова^Анна"),
    "utf-8-declared-as-japanese": ("\\ISO 2022 IR 87", plain("utf_8"), "Yamamoto^Tarou=山本^太郎"),
    "misspelt": ("ISO-IR 100", plain("latin_1"), "Müller^Jörg"),
}
CASES = DECLARED | UNDECLARED


def write_source(folder: Path, case: str) -> list[Path]:
    """A series whose texts are the bytes that a sender in that country would have written."""
    declared, encode, text = CASES[case]
    encoded = encode(text)
    placeholder = "X" * (len(encoded) + len(encoded) % 2)
    header = dict.fromkeys(TEXTS, placeholder)
    paths = flair_series(folder, slices=3, rows=32, columns=32, patient_id=case, **header)
    character_set = b"" if declared is None else element(declared.encode())
    for path in paths:
        content = path.read_bytes()
        assert content.count(element(b"ISO_IR 192")) == 1
        content = content.replace(element(b"ISO_IR 192"), character_set)
        path.write_bytes(content.replace(placeholder.encode(), encoded.ljust(len(placeholder))))
    return paths


def element(character_set: bytes) -> bytes:
    """Specific Character Set as it stands in a file, explicit VR little endian."""
    value = character_set + b" " * (len(character_set) % 2)
    return struct.pack("<HH2sH", 0x0008, 0x0005, b"CS", len(value)) + value


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An Orthanc that holds every source and all its results."""
    folder = tmp_path_factory.mktemp("characters")
    for number, case in enumerate(CASES):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Incorrect value for Specific Character Set")
            reading = read(write_source(folder / "files" / f"{number}", case), 1)
        for count, output in enumerate(reading.outputs(rules=RULES)):
            (folder / "files" / f"{number}" / f"r{count}.dcm").write_bytes(to_bytes(output))
    (folder / "orthanc").mkdir()
    with orthanc(folder / "orthanc", env={"TCP_NODELAY": "1"}) as pacs:
        sent = storescu([folder / "files"], pacs.dicom_port, options=["--required"])
        assert sent.returncode == 0, sent.stderr
        yield pacs


def texts_of(pacs, case: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """What the archive reads in each source instance, and in each result."""
    source, results = [], []
    for instance in pacs.find("Instance", PatientID=case):
        tags = pacs.get_json(f"/instances/{instance['ID']}/simplified-tags")
        (source if tags["Modality"] == "MR" else results).append({name: tags[name] for name in TEXTS})
    return source, results


@pytest.mark.parametrize("case", CASES)
def test_the_archive_reads_every_text_of_every_result_as_it_was_meant(case, archive):
    _, results = texts_of(archive, case)
    assert len(results) == MADE
    for texts in results:
        assert texts == dict.fromkeys(TEXTS, CASES[case][2])


@pytest.mark.parametrize("case", sorted(set(DECLARED) - {"katakana"}))  # of it Orthanc reads the first set
def test_the_archive_reads_the_source_the_same(case, archive):
    """Else the text above could be right by our own reading alone."""
    source, _ = texts_of(archive, case)
    assert source
    for texts in source:
        assert texts == dict.fromkeys(TEXTS, CASES[case][2])


@pytest.mark.parametrize("case", CASES)
def test_a_query_finds_the_name_in_its_parts(case, archive):
    """QIDO-RS gives a name's parts apart (PS3.18 F.2.2), as viewers ask for them."""
    if not archive.has_dicom_web:
        missing("no DICOMweb plug-in: apt-get install orthanc-dicomweb")
    path = f"/dicom-web/studies?PatientID={quote(case)}&includefield=StudyDescription"
    (study,) = archive.get_json(path)
    groups = CASES[case][2].split("=")
    names = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), groups, strict=False))
    (found,) = study["00100010"]["Value"]
    assert found == names
    assert study["00081030"]["Value"] == [CASES[case][2]]
