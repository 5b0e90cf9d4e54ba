"""Results to the PACS and to a second implementation, and to peers that are not as they should be."""

import time

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset

from msnode.association import DicomAddress
from msnode.deliver.destination import Outcome, ResultObject
from msnode.deliver.dicom import CONTEXT_OF_KIND, DicomDestination
from msnode.errors import AssociationRejected, PeerUnreachable
from support import peers
from support.dicom_files import derived_uid

pytestmark = pytest.mark.peer

KINDS = frozenset(CONTEXT_OF_KIND)


def _common(kind, number):
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = CONTEXT_OF_KIND[kind].sop_class_uid
    ds.SOPInstanceUID = derived_uid("deliver", kind, number)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = derived_uid("study"), derived_uid("series", kind)
    ds.PatientName, ds.PatientID = "Łukasiewicz^Zoë", "P1"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20240102", "101112", "", "1"
    ds.Modality = {"seg": "SEG", "sr": "SR", "overlay": "OT"}[kind]
    ds.SeriesNumber, ds.InstanceNumber = 9800, number
    return ds


def _image(ds, rows, columns, samples, bits):
    ds.Rows, ds.Columns, ds.SamplesPerPixel = rows, columns, samples
    ds.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0


def _write(kind, number, folder):
    ds = _common(kind, number)
    if kind == "overlay":
        _image(ds, 16, 20, 3, 8)
        ds.PlanarConfiguration, ds.ConversionType = 0, "WSD"
        ds.PixelData = np.arange(16 * 20 * 3, dtype=np.uint8).tobytes()
    elif kind == "seg":
        _image(ds, 16, 16, 1, 1)
        ds.NumberOfFrames, ds.SegmentationType = 3, "BINARY"
        ds.PixelData = bytes(range(96))
    else:
        ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
        ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    path = folder / f"{kind}-{number}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return ResultObject.from_file(kind, path)


@pytest.fixture
def results(tmp_path):
    """One SEG, one SR and three overlay images."""
    folder = tmp_path / "set"
    folder.mkdir()
    return [
        _write(kind, n, folder) for kind, n in (("seg", 1), ("sr", 1), *(("overlay", n) for n in (1, 2, 3)))
    ]


def _destination(port, aet):
    return DicomDestination("pacs", KINDS, DicomAddress(aet, "127.0.0.1", port), "MSNODE")


def _data_set(path):
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def test_orthanc_holds_what_was_sent(orthanc, results):
    pacs = _destination(orthanc.dicom_port, orthanc.aet)
    sent = pacs.send(results, attempt=1)
    assert [(r.outcome, r.status) for r in sent] == [(Outcome.STORED, 0)] * 5
    assert orthanc.find_instances() == sorted(r.sop_instance_uid for r in results)
    for each in results:
        (orthanc_copy := each.path.with_suffix(".orthanc")).write_bytes(
            orthanc.download(each.sop_instance_uid)
        )
        assert _data_set(orthanc_copy) == _data_set(each.path)
        assert dcmread(orthanc_copy).PatientName == "Łukasiewicz^Zoë"


def test_orthanc_takes_the_same_objects_again(orthanc, results):
    pacs = _destination(orthanc.dicom_port, orthanc.aet)
    pacs.send(results, attempt=1)
    assert all(r.outcome.is_delivered for r in pacs.send(results, attempt=2))
    assert orthanc.instance_count() == 5


def test_orthanc_would_take_every_kind(orthanc):
    answer = _destination(orthanc.dicom_port, orthanc.aet).echo()
    assert (answer.status, answer.refusals) == (0, {})


def test_dcmtk_receives_the_data_sets_byte_for_byte(storescp, results):
    sent = _destination(storescp.port, storescp.aet).send(results, attempt=1)
    assert {r.outcome for r in sent} == {Outcome.STORED}
    received = {dcmread(p).SOPInstanceUID: _data_set(p) for p in storescp.files()}
    assert received == {each.sop_instance_uid: _data_set(each.path) for each in results}


def test_a_destination_that_is_down(tmp_path, results):
    with peers.storescp(tmp_path) as gone:
        port = gone.port
    begin = time.monotonic()
    with pytest.raises(PeerUnreachable, match="no connection"):
        _destination(port, "STORESCP").send(results, attempt=1)
    assert time.monotonic() - begin < 2


def test_a_destination_under_another_name(results):
    with peers.answering_scp([("1.2.840.10008.1.1", "1.2.840.10008.1.2")], aet="PACS") as port:
        with pytest.raises(AssociationRejected, match="called ae title not recognised"):
            _destination(port, "PASC").send(results, attempt=1)
        with pytest.raises(AssociationRejected):
            _destination(port, "PASC").echo()


_ONLY_IMAGES = """
[[TransferSyntaxes]]
[Uncompressed]
TransferSyntax1 = LittleEndianExplicit
[[PresentationContexts]]
[Images]
PresentationContext1 = SecondaryCaptureImageStorage\\Uncompressed
[[Profiles]]
[Default]
PresentationContexts = Images
"""


def test_a_destination_that_takes_neither_seg_nor_sr(tmp_path, results):
    config = tmp_path / "storescp.cfg"
    config.write_text(_ONLY_IMAGES)
    with peers.storescp(tmp_path, options=["--config-file", str(config), "Default"]) as only_images:
        pacs = _destination(only_images.port, only_images.aet)
        sent = pacs.send(results, attempt=1)
        assert set(pacs.echo().refusals) == {CONTEXT_OF_KIND["seg"], CONTEXT_OF_KIND["sr"]}
        assert len(only_images.files()) == 3
    assert [r.outcome for r in sent] == [Outcome.REFUSED] * 2 + [Outcome.STORED] * 3
    assert sent[1].text.startswith("Comprehensive 3D SR Storage in Explicit VR Little Endian not accepted")


@pytest.mark.parametrize(
    ("status", "attempt", "outcome"),
    [
        (0xB000, 1, Outcome.STORED_WITH_WARNING),
        (0xB006, 1, Outcome.STORED_WITH_WARNING),
        (0xB007, 1, Outcome.STORED_WITH_WARNING),
        (0xA700, 1, Outcome.TRY_LATER),
        (0x0110, 1, Outcome.TRY_LATER),
        (0x0213, 1, Outcome.TRY_LATER),
        (0xA900, 1, Outcome.REFUSED),
        (0x0122, 1, Outcome.REFUSED),
        (0x0124, 1, Outcome.REFUSED),
        (0xC000, 2, Outcome.TRY_LATER),
        (0xC000, 3, Outcome.REFUSED),
        (0x0111, 1, Outcome.ALREADY_THERE),
    ],
)
def test_every_answer_over_the_wire(results, status, attempt, outcome):
    contexts = [(c.sop_class_uid, c.transfer_syntax_uid) for c in CONTEXT_OF_KIND.values()]
    with peers.answering_scp(contexts, aet="PACS", store=lambda _event: status) as port:
        (sent,) = _destination(port, "PACS").send(results[:1], attempt=attempt)
    assert (sent.outcome, sent.status) == (outcome, status)
