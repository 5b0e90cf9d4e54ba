import re
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest

from msnode.encode import ResultIdentity, encode_pdf
from msnode.encode.page import Page, Words, reading_page, rejection_page
from msnode.encode.pdf import page_as_pdf
from support.dicom_files import flair_series
from support.readings import MARK_BELOW, provenance, read

WRITTEN = datetime(2024, 1, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def reading(tmp_path):
    return read(flair_series(tmp_path / "in", slices=4, rows=32, columns=32), 3)


def streams(document):
    """What the streams of a document hold, in order, each with the dictionary before it."""
    found = re.findall(rb"<<([^<>]*(?:<<[^<>]*>>[^<>]*)*)>>\s*stream\r?\n(.*?)endstream", document, re.DOTALL)
    assert all(b"/FlateDecode" in head for head, _ in found)
    return [(head, zlib.decompressobj().decompress(content)) for head, content in found]


def picture(document):
    ((head, content),) = [s for s in streams(document) if b"/Subtype /Image" in s[0]]
    width, height = (int(re.search(rb"/%s (\d+)" % name, head)[1]) for name in (b"Width", b"Height"))
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


def drawing(document):
    ((_, content),) = [s for s in streams(document) if b"/Subtype /Image" not in s[0]]
    return content


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
    np.testing.assert_array_equal(picture(document), page.pixels)


def test_a_refusal_is_a_document_too(reading):
    instances = [f.instance for f in reading.source.frames]
    identity = ResultIdentity.of_rejection(instances, "too few slices", provenance(model=None))
    page = rejection_page("too few slices", identity=identity)
    document = encode_pdf(page, instances, identity=identity).dataset.EncapsulatedDocument
    assert b"(Reason: too few slices) Tj" in drawing(document)


@pytest.fixture
def page():
    pixels = np.random.default_rng(2).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    return Page(pixels, (Words("18 (of 20) \\ \u00e9", 3, 10, 5), Words("End", 0, 40, 5)))


def test_dates_come_from_the_reading_alone(page):
    document = page_as_pdf(page, WRITTEN)
    assert re.findall(rb"/(\w+Date) \(([^)]*)", document) == [
        (b"CreationDate", b"D:20240103040506"),
        (b"ModDate", b"D:20240103040506"),
    ]
    assert document == page_as_pdf(page, WRITTEN)


def test_words_lie_unpainted_where_they_are_drawn(page):
    document = page_as_pdf(page, WRITTEN)
    assert re.search(rb"/MediaBox \[ 0 0 14.4 19.2 \]", document)
    drawn = drawing(document)
    assert b"3 Tr" in drawn
    assert b"1 0 0 1 1.44 14.4 Tm" in drawn
    assert b"(18 \\(of 20\\) \\\\ \\351) Tj" in drawn
    assert b"1 0 0 1 0 0 Tm" in drawn
    assert b"(End) Tj" in drawn
