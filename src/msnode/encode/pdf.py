"""The summary page as an Encapsulated PDF (PS3.3 A.45.1), for archives that show documents."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image
from pydicom.uid import EncapsulatedPDFStorage
from reportlab import rl_config
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from msnode.dicom.uids import EQUIPMENT
from msnode.domain.provenance import Output
from msnode.encode import codes
from msnode.encode.codes import concept
from msnode.encode.normalise import tolerant_values
from msnode.encode.provenance import new_object, stamp
from msnode.encode.summary import leave_frame_of_reference, source_instances

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pydicom.dataset import Dataset

    from msnode.domain.imaging import Instance
    from msnode.encode.page import Page
    from msnode.encode.provenance import ResultIdentity

_KIND = "pdf"
_TITLE = "MS lesions in FLAIR: AI result, not verified"
_POINTS_PER_PIXEL = 72 / 150
_INVISIBLE = 3
"""Text rendering mode in which nothing is painted; the text can be searched for and copied."""

rl_config.useA85 = 0  # binary streams: as ASCII they take a quarter more room and twice the time


def encode_pdf(page: Page, instances: Sequence[Instance], *, identity: ResultIdentity) -> Output:
    """Wrap the summary page of a reading, or of its refusal, as a PDF document.

    Args:
        page: the page.
        instances: what was read or looked at, at least one.
        identity: what the results of one reading or refusal share.

    Returns:
        An output of kind "pdf", alone in its series.
    """
    with tolerant_values():
        ds = new_object(EncapsulatedPDFStorage, _KIND, identity)
        _describe(ds, instances)
        content = page_as_pdf(page, identity.started_at)
        ds.EncapsulatedDocumentLength = len(content)
        ds.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
        stamp(ds, _KIND, identity)
        leave_frame_of_reference(ds)
    return Output(kind=_KIND, dataset=ds)


def _describe(ds: Dataset, instances: Sequence[Instance]) -> None:
    """Encapsulated Document Series, SC Equipment and Encapsulated Document module (PS3.3 C.24)."""
    ds.Modality, ds.ConversionType = "DOC", "WSD"
    ds.AcquisitionDateTime = None
    ds.BurnedInAnnotation = "NO"
    ds.SourceInstanceSequence = source_instances(instances)
    ds.DocumentTitle = _TITLE
    ds.ConceptNameCodeSequence = [concept(codes.REPORT_TITLE)]
    ds.VerificationFlag = "UNVERIFIED"
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"


def page_as_pdf(page: Page, written_at: datetime) -> bytes:
    """One page with the picture, and its words, invisible, for searching (ISO 32000-1, 9.3.6).

    Args:
        page: the page.
        written_at: date of the document; nothing in it comes from the clock.
    """
    height, width = page.pixels.shape[:2]
    size = width * _POINTS_PER_PIXEL, height * _POINTS_PER_PIXEL
    document = BytesIO()
    canvas = Canvas(document, pagesize=size, pageCompression=1, invariant=1)
    canvas.setDateFormatter(lambda *_: written_at.strftime("D:%Y%m%d%H%M%S"))  # else 2000-01-01
    canvas.setTitle(_TITLE)
    canvas.setAuthor(EQUIPMENT)
    canvas.setCreator(EQUIPMENT)
    canvas.drawImage(ImageReader(Image.fromarray(page.pixels)), 0, 0, *size)
    text = canvas.beginText()
    text.setTextRenderMode(_INVISIBLE)
    for words in page.words:
        text.setFont("Helvetica", words.size * _POINTS_PER_PIXEL)
        text.setTextOrigin(words.left * _POINTS_PER_PIXEL, size[1] - words.baseline * _POINTS_PER_PIXEL)
        text.textOut(words.text)
    canvas.drawText(text)
    canvas.save()
    return document.getvalue()
