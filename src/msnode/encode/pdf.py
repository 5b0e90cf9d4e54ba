"""The summary page as an Encapsulated PDF (PS3.3 A.45.1), for archives that show documents.

The document is written here and not by a library: the bytes of reportlab 5.1 depend on environment variables
(SOURCE_DATE_EPOCH, RL_*) even in its invariant mode, and it takes three times as long.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from pydicom.uid import EncapsulatedPDFStorage

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
    from msnode.encode.provenance import ResultIdentity
    from msnode.encode.sheet import Page

_KIND = "pdf"
_TITLE = "MS lesions in FLAIR: AI result, not verified"
_POINTS_PER_PIXEL = 72 / 150
_BEHIND_THE_PICTURE = 3
"""Text rendering mode in which nothing is painted: it can be searched for and copied."""


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
    """One A4 page with the picture, and its words, not painted, for searching (PDF 1.4, ISO 32000-1).

    Args:
        page: the page.
        written_at: the document's date; nothing else tells one writing from another.
    """
    height, width = page.pixels.shape[:2]
    wide, high = width * _POINTS_PER_PIXEL, height * _POINTS_PER_PIXEL
    date = written_at.strftime("D:%Y%m%d%H%M%S")
    lines = [
        f"/F {w.size * _POINTS_PER_PIXEL:.2f} Tf 1 0 0 1 {w.left * _POINTS_PER_PIXEL:.2f} "
        f"{high - w.baseline * _POINTS_PER_PIXEL:.2f} Tm ({_escaped(w.text)}) Tj"
        for w in page.words
    ]
    text = f"BT {_BEHIND_THE_PICTURE} Tr\n" + "\n".join(lines) + "\nET\n"
    drawing = f"q {wide:.2f} 0 0 {high:.2f} 0 0 cm /P Do Q\n".encode() + text.encode("cp1252", "replace")
    picture = (
        f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceRGB "
        "/BitsPerComponent 8 /Filter /FlateDecode"
    )
    return _file([
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {wide:.2f} {high:.2f}] /Contents 5 0 R "
        "/Resources << /XObject << /P 4 0 R >> /Font << /F 6 0 R >> >> >>".encode(),
        _stream(picture, zlib.compress(page.pixels.tobytes(), 3)),
        _stream("", drawing),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        f"<< /Title ({_escaped(_TITLE)}) /Producer ({EQUIPMENT}) /CreationDate ({date}) >>".encode(),
    ])  # fmt: skip


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _stream(described: str, content: bytes) -> bytes:
    return f"<< {described} /Length {len(content)} >>\nstream\n".encode() + content + b"\nendstream"


def _file(objects: Sequence[bytes]) -> bytes:
    """Header, objects from 1 on (the first is the catalog, the last the information), table, trailer."""
    written = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"
    table = b"0000000000 65535 f \n"
    for number, one in enumerate(objects, start=1):
        table += f"{len(written):010} 00000 n \n".encode()
        written += f"{number} 0 obj\n".encode() + one + b"\nendobj\n"
    count = len(objects) + 1
    trailer = (
        f"trailer\n<< /Size {count} /Root 1 0 R /Info {len(objects)} 0 R >>\n"
        f"startxref\n{len(written)}\n%%EOF\n"
    )
    return written + f"xref\n0 {count}\n".encode() + table + trailer.encode()
