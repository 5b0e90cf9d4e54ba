import re
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest

from msnode.encode import ResultIdentity, encode_pdf
from msnode.encode.page import reading_page, rejection_page
from msnode.encode.pdf import page_as_pdf
from msnode.encode.sheet import Page, Words
from support.dicom_files import flair_series
from support.readings import MARK_BELOW, provenance, read

WRITTEN = datetime(2024, 1, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def reading(tmp_path):
    return read(flair_series(tmp_path / "in", slices=4, rows=32, columns=32), 3)


def parts(document):
    """Objects of a document by number, found through its cross-reference table."""
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", document)[1])
    lines = document[start:].split(b"trailer")[0].splitlines()
    assert lines[0] == b"xref"
    count = int(lines[1].split()[1])
    assert len(lines) == count + 2
    assert all(len(line) == 19 for line in lines[2:])  # and the line's end: 20 bytes (ISO 32000-1, 7.5.4)
    found = {}
    for number, line in enumerate(lines[3:], start=1):
        offset, _, kind = line.split()
        assert kind == b"n"
        head = f"{number} 0 obj\n".encode()
        assert document[int(offset) :].startswith(head)
        found[number] = document[int(offset) + len(head) :].split(b"\nendobj\n")[0]
    return found


def stream(part):
    length = int(re.search(rb"/Length (\d+)", part)[1])
    head, content = part.split(b"stream\n", 1)
    assert head.endswith(b">>\n")
    assert content[length:] == b"\nendstream"
    return content[:length]


def test_the_document_is_the_summary_page(reading):
    identity = ResultIdentity.of_reading(reading.source, provenance())
    page = reading_page(
        reading.source, reading.lesion_map, reading.findings, mark_below=MARK_BELOW, identity=identity
    )
    ds = encode_pdf(page, [f.instance for f in reading.source.frames], identity=identity).dataset
    assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert (ds.Modality, ds.ConversionType, ds.BurnedInAnnotation) == ("DOC", "WSD", "NO")
    assert ds.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert ds.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert "not verified" in ds.DocumentTitle
    assert (ds.SeriesNumber, ds.SeriesDescription) == (9806, "MS AI SUMMARY PDF")
    assert len(ds.SourceInstanceSequence) == 4
    assert "FrameOfReferenceUID" not in ds
    assert len(ds.EncapsulatedDocument) == ds.EncapsulatedDocumentLength + ds.EncapsulatedDocumentLength % 2
    document = ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength]
    assert document == page_as_pdf(page, identity.started_at)
    assert b"(D:20240103040506)" in document


def test_a_refusal_is_a_document_too(reading):
    instances = [f.instance for f in reading.source.frames]
    identity = ResultIdentity.of_rejection(instances, "too few slices", provenance(model=None))
    page = rejection_page("too few slices", identity=identity)
    ds = encode_pdf(page, instances, identity=identity).dataset
    document = ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength]
    assert document == page_as_pdf(page, identity.started_at)
    assert b"(Reason: too few slices) Tj" in document


@pytest.fixture
def page():
    pixels = np.random.default_rng(2).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    return Page(pixels, (Words("18 (of 20) \\ «x»", 3, 10, 5), Words("End", 0, 40, 5)))


def test_table_and_streams_are_as_the_format_says(page):
    document = page_as_pdf(page, WRITTEN)
    assert document.startswith(b"%PDF-1.4\n")
    found = parts(document)
    assert b"/Type /Catalog" in found[1]
    picture = np.frombuffer(zlib.decompress(stream(found[4])), np.uint8).reshape(40, 30, 3)
    np.testing.assert_array_equal(picture, page.pixels)
    assert b"/MediaBox [0 0 14.40 19.20]" in found[3]
    drawing = stream(found[5])
    assert drawing.startswith(b"q 14.40 0 0 19.20 0 0 cm /P Do Q\nBT 3 Tr\n")


def test_words_lie_unpainted_where_they_are_drawn(page):
    drawing = stream(parts(page_as_pdf(page, WRITTEN))[5])
    assert b"1 0 0 1 1.44 14.40 Tm (18 \\(of 20\\) \\\\ \xabx\xbb) Tj" in drawing
    assert b"1 0 0 1 0.00 0.00 Tm (End) Tj" in drawing
