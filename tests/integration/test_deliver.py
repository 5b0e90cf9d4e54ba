"""Results to the PACS and to a second implementation, and to peers that are not as they should be."""

import pytest
from pydicom import dcmread
from pynetdicom.dsutils import split_dataset

from msnode.deliver.destination import Outcome, ResultObject
from msnode.deliver.dicom import CONTEXT_OF_KIND, DicomDestination
from msnode.dicom.connection import DicomAddress
from msnode.encode import encode_seg, to_bytes
from msnode.errors import AssociationRejected, PeerUnreachable
from support import peers
from support.dicom_files import flair_series
from support.readings import provenance, read
from support.result_files import write_results

pytestmark = pytest.mark.peer

KINDS = frozenset(CONTEXT_OF_KIND)


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "set")


def _destination(port, aet):
    return DicomDestination("pacs", KINDS, DicomAddress(aet, "127.0.0.1", port), "MSNODE")


def _data_set(path):
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def test_orthanc_holds_what_was_sent(orthanc, results):
    pacs = _destination(orthanc.dicom_port, orthanc.aet)
    sent = pacs.send(results)
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
    pacs.send(results)
    assert all(r.outcome.is_delivered for r in pacs.send(results))
    assert orthanc.instance_count() == 5


def test_orthanc_would_take_every_kind(orthanc):
    answer = _destination(orthanc.dicom_port, orthanc.aet).echo()
    assert (answer.status, answer.refusals) == (0, {})


def test_dcmtk_receives_the_data_sets_byte_for_byte(storescp, results):
    sent = _destination(storescp.port, storescp.aet).send(results)
    assert {r.outcome for r in sent} == {Outcome.STORED}
    received = {dcmread(p).SOPInstanceUID: _data_set(p) for p in storescp.files()}
    assert received == {each.sop_instance_uid: _data_set(each.path) for each in results}


def test_a_destination_that_is_down(tmp_path, results):
    with peers.storescp(tmp_path) as gone:
        port = gone.port
    with pytest.raises(PeerUnreachable, match="no connection"):
        peers.in_time(lambda: _destination(port, "STORESCP").send(results))


def test_a_destination_under_another_name(results):
    with peers.answering_scp([("1.2.840.10008.1.1", "1.2.840.10008.1.2")], aet="PACS") as port:
        with pytest.raises(AssociationRejected, match="called ae title not recognised"):
            _destination(port, "PASC").send(results)
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
        sent = pacs.send(results)
        assert set(pacs.echo().refusals) == {*CONTEXT_OF_KIND.values()} - {CONTEXT_OF_KIND["overlay"]}
        assert len(only_images.files()) == 3
    assert [r.outcome for r in sent] == [Outcome.REFUSED] * 2 + [Outcome.STORED] * 3
    assert sent[1].text.startswith("Comprehensive 3D SR Storage in Explicit VR Little Endian not accepted")


@pytest.fixture
def label_map(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=4, rows=40, columns=40), 2)
    output = encode_seg(reading.source, reading.lesion_map, reading.findings, provenance(), form="labelmap")
    path = tmp_path / "seg-1.dcm"
    path.write_bytes(to_bytes(output))
    return ResultObject.from_file("seg", path)


def test_a_label_map_travels_compressed_as_it_is(tmp_path, label_map):
    with peers.storescp(tmp_path, options=["--promiscuous", "+xr"]) as pacs:
        (sent,) = _destination(pacs.port, pacs.aet).send([label_map])
        assert sent.outcome is Outcome.STORED
        (received,) = pacs.files()
        assert _data_set(received) == _data_set(label_map.path)


def test_a_label_map_is_refused_by_itself_where_it_is_not_known(storescp, label_map, results):
    sent = _destination(storescp.port, storescp.aet).send([label_map, *results])
    assert [r.outcome for r in sent] == [Outcome.REFUSED, *[Outcome.STORED] * 5]
    assert sent[0].text.startswith("Label Map Segmentation Storage in RLE Lossless not accepted")


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0xB000, Outcome.STORED_WITH_WARNING),
        (0xB006, Outcome.STORED_WITH_WARNING),
        (0xB007, Outcome.STORED_WITH_WARNING),
        (0xA700, Outcome.TRY_LATER),
        (0x0110, Outcome.TRY_LATER),
        (0x0213, Outcome.TRY_LATER),
        (0xA900, Outcome.REFUSED),
        (0x0122, Outcome.REFUSED),
        (0x0124, Outcome.REFUSED),
        (0xC000, Outcome.UNCLEAR),
        (0x0111, Outcome.ALREADY_THERE),
    ],
)
def test_every_answer_over_the_wire(results, status, outcome):
    contexts = [(c.sop_class_uid, c.transfer_syntax_uid) for c in CONTEXT_OF_KIND.values()]
    with peers.answering_scp(contexts, aet="PACS", store=lambda _event: status) as port:
        (sent,) = _destination(port, "PACS").send(results[:1])
    assert (sent.outcome, sent.status) == (outcome, status)
