import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from msnode.association import DicomAddress
from msnode.deliver.destination import Outcome, ResultObject
from msnode.deliver.dicom import CONTEXT_OF_KIND, DicomDestination, outcome_of
from support.dicom_files import change, flair_series
from support.peers import answering_scp

KINDS = frozenset({"seg", "sr", "overlay"})


def _destination(port, objects=KINDS):
    return DicomDestination("pacs", objects, DicomAddress("ANSWERS", "127.0.0.1", port), "MSNODE")


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, Outcome.STORED),
        (0xB000, Outcome.STORED_WITH_WARNING),
        (0xB006, Outcome.STORED_WITH_WARNING),
        (0xB007, Outcome.STORED_WITH_WARNING),
        (0xA700, Outcome.TRY_LATER),
        (0xA7FF, Outcome.TRY_LATER),
        (0x0110, Outcome.TRY_LATER),
        (0x0213, Outcome.TRY_LATER),
        (0xA900, Outcome.REFUSED),
        (0xA9FF, Outcome.REFUSED),
        (0x0122, Outcome.REFUSED),
        (0x0124, Outcome.REFUSED),
        (0x0111, Outcome.ALREADY_THERE),
    ],
)
def test_statuses_mean_the_same_at_every_attempt(status, outcome):
    assert outcome_of(status, 1)[0] is outcome
    assert outcome_of(status, 9)[0] is outcome


@pytest.mark.parametrize("status", [0xC000, 0xC123, 0xCFFF, 0xA801, 0x0211])
def test_cannot_understand_is_tried_three_times(status):
    assert [outcome_of(status, attempt)[0] for attempt in (1, 2, 3, 4)] == [
        Outcome.TRY_LATER,
        Outcome.TRY_LATER,
        Outcome.REFUSED,
        Outcome.REFUSED,
    ]


def _objects(folder):
    """One object of each kind (headers of an MR image: the destination looks at the meta information)."""
    paths = flair_series(folder, slices=3)
    for path, (kind, context) in zip(paths, CONTEXT_OF_KIND.items(), strict=True):
        change(path, SOPClassUID=context.sop_class_uid)
        yield ResultObject.from_file(kind, path)


def _supported(*kinds):
    return [(CONTEXT_OF_KIND[k].sop_class_uid, CONTEXT_OF_KIND[k].transfer_syntax_uid) for k in kinds]


def test_an_unaccepted_context_refuses_that_object_alone(tmp_path):
    objects = list(_objects(tmp_path))
    stored = []

    def store(event):
        stored.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    with answering_scp(_supported("sr", "overlay"), store=store) as port:
        results = _destination(port).send(objects, attempt=1)
    assert [r.outcome for r in results] == [Outcome.REFUSED, Outcome.STORED, Outcome.STORED]
    assert results[0].text == (
        "Segmentation Storage in Explicit VR Little Endian not accepted: abstract syntax not supported"
    )
    assert [r.status for r in results] == [None, 0, 0]
    assert [r.sop_instance_uid for r in results] == [o.sop_instance_uid for o in objects]
    assert stored == [o.sop_instance_uid for o in objects[1:]]


def test_a_peer_that_takes_nothing_refuses_everything(tmp_path):
    with answering_scp([(MRImageStorage, ExplicitVRLittleEndian)]) as port:
        results = _destination(port).send(list(_objects(tmp_path)), attempt=1)
    assert {r.outcome for r in results} == {Outcome.REFUSED}


def test_each_object_has_its_own_answer_over_one_association(tmp_path):
    answers = iter([0xB007, 0xA700, 0xC001])
    associations = set()

    def store(event):
        associations.add(id(event.assoc))
        return next(answers)

    with answering_scp(_supported(*KINDS), store=store) as port:
        results = _destination(port).send(list(_objects(tmp_path)), attempt=3)
    assert [(r.outcome, r.status, r.text) for r in results] == [
        (Outcome.STORED_WITH_WARNING, 0xB007, "stored, data set does not match SOP class"),
        (Outcome.TRY_LATER, 0xA700, "out of resources"),
        (Outcome.REFUSED, 0xC001, "cannot understand, 3 times"),
    ]
    assert len(associations) == 1


def test_a_peer_that_goes_away_keeps_what_it_stored(tmp_path):
    seen = []

    def store(event):
        seen.append(1)
        if len(seen) == 2:
            event.assoc.abort()
        return 0x0000

    with answering_scp(_supported(*KINDS), store=store) as port:
        results = _destination(port).send(list(_objects(tmp_path)), attempt=1)
    assert [r.outcome for r in results] == [Outcome.STORED, Outcome.TRY_LATER, Outcome.TRY_LATER]
    assert "association lost" in results[1].text
    assert len(seen) == 2


def test_echo_asks_about_the_kinds_it_takes():
    with answering_scp([*_supported("sr"), ("1.2.840.10008.1.1", "1.2.840.10008.1.2")]) as port:
        result = _destination(port, frozenset({"seg", "sr"})).echo()
    assert result.status == 0
    assert set(result.refusals) == {CONTEXT_OF_KIND["seg"]}
