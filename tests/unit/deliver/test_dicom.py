from dataclasses import replace

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from msnode.deliver.destination import Outcome, ResultObject
from msnode.deliver.dicom import CONTEXT_OF_KIND, DicomDestination, outcome_of
from msnode.dicom.connection import DicomAddress
from msnode.dicom.contexts import COMMITMENT, FIND, VERIFICATION
from support.dicom_files import change, flair_series
from support.peers import answering_scp

KINDS = ("seg", "sr", "overlay", "ko")


def _destination(port, objects=frozenset(KINDS)):
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
def test_what_each_status_means(status, outcome):
    assert outcome_of(status)[0] is outcome


@pytest.mark.parametrize("status", [0xC000, 0xC123, 0xCFFF, 0xA801, 0x0211])
def test_cannot_understand_may_mean_a_busy_database(status):
    assert outcome_of(status)[0] is Outcome.UNCLEAR


def _objects(folder):
    """One object of each kind (headers of an MR image: the destination looks at the meta information)."""
    paths = flair_series(folder, slices=len(KINDS))
    for path, kind in zip(paths, KINDS, strict=True):
        change(path, SOPClassUID=CONTEXT_OF_KIND[kind].sop_class_uid)
        yield ResultObject.from_file(kind, path)


def _pairs(*contexts):
    return [(c.sop_class_uid, c.transfer_syntax_uid) for c in contexts]


def _supported(*kinds):
    return _pairs(*(CONTEXT_OF_KIND[k] for k in kinds))


def test_an_unaccepted_context_refuses_that_object_alone(tmp_path):
    objects = list(_objects(tmp_path))
    stored = []

    def store(event):
        stored.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    with answering_scp(_supported("sr", "overlay", "ko"), store=store) as port:
        results = _destination(port).send(objects)
    assert [r.outcome for r in results] == [Outcome.REFUSED, *[Outcome.STORED] * 3]
    assert results[0].text == (
        "Segmentation Storage in Explicit VR Little Endian not accepted: abstract syntax not supported"
    )
    assert [r.status for r in results] == [None, 0, 0, 0]
    assert [r.sop_instance_uid for r in results] == [o.sop_instance_uid for o in objects]
    assert stored == [o.sop_instance_uid for o in objects[1:]]


def test_a_peer_that_takes_nothing_refuses_everything(tmp_path):
    with answering_scp([(MRImageStorage, ExplicitVRLittleEndian)]) as port:
        results = _destination(port).send(list(_objects(tmp_path)))
    assert {r.outcome for r in results} == {Outcome.REFUSED}


def test_each_object_has_its_own_answer_over_one_association(tmp_path):
    answers = iter([0xB007, 0xA700, 0xC001, 0x0000])
    associations = set()

    def store(event):
        associations.add(id(event.assoc))
        return next(answers)

    with answering_scp(_supported(*KINDS), store=store) as port:
        results = _destination(port).send(list(_objects(tmp_path)))
    assert [(r.outcome, r.status, r.text) for r in results] == [
        (Outcome.STORED_WITH_WARNING, 0xB007, "stored, data set does not match SOP class"),
        (Outcome.TRY_LATER, 0xA700, "out of resources"),
        (Outcome.UNCLEAR, 0xC001, "cannot understand"),
        (Outcome.STORED, 0x0000, "stored"),
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
        results = _destination(port).send(list(_objects(tmp_path)))
    assert [r.outcome for r in results] == [Outcome.STORED, *[Outcome.TRY_LATER] * 3]
    assert "association lost" in results[1].text
    assert len(seen) == 2


def test_echo_asks_about_the_kinds_it_takes():
    with answering_scp([*_supported("sr"), *_pairs(VERIFICATION)]) as port:
        result = _destination(port, frozenset({"seg", "sr"})).echo()
    assert result.status == 0
    assert set(result.refusals) == {CONTEXT_OF_KIND["seg"]}


def test_echo_asks_about_label_maps_where_the_site_writes_them():
    with answering_scp([*_supported("seg"), *_pairs(VERIFICATION)]) as port:
        result = replace(_destination(port, frozenset({"seg"})), label_map=True).echo()
    assert [str(c) for c in result.refusals] == ["Label Map Segmentation Storage in RLE Lossless"]


@pytest.mark.parametrize(
    ("verify", "offered", "confirms_by", "advice"),
    [
        ("commitment", [COMMITMENT, FIND], "commitment", ""),
        ("commitment", [COMMITMENT], "commitment", ""),
        ("commitment", [FIND], "find", 'enable commitment there, or set verify = "find"'),
        ("commitment", [], None, 'enable one of them there, or set verify = "none"'),
        ("find", [COMMITMENT, FIND], "find", ""),
        ("find", [COMMITMENT], None, 'set verify = "commitment"'),
        ("find", [], None, 'enable one of them there, or set verify = "none"'),
        ("none", [], "none", ""),
    ],
)
def test_echo_tells_how_the_destination_confirms(verify, offered, confirms_by, advice):
    with answering_scp(_pairs(VERIFICATION, *offered)) as port:
        result = replace(_destination(port, frozenset()), verify=verify).echo()
    assert (result.status, result.refusals, result.confirms_by) == (0, {}, confirms_by)
    assert result.advice.endswith(advice)
    assert bool(result.advice) is bool(advice)
