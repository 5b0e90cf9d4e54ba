import os

import pytest

from msnode.deliver.destination import Outcome, ResultObject
from msnode.deliver.folder import FolderDestination
from msnode.errors import PeerUnreachable
from support.dicom_files import change, flair_series


@pytest.fixture
def share(tmp_path):
    (tmp_path / "share").mkdir()
    return FolderDestination("share", frozenset({"overlay"}), tmp_path / "share")


@pytest.fixture
def objects(tmp_path):
    return [ResultObject.from_file("overlay", p) for p in flair_series(tmp_path / "set", slices=2)]


def test_files_are_copied_byte_for_byte(share, objects):
    results = share.send(objects)
    assert [r.outcome for r in results] == [Outcome.STORED] * 2
    assert [r.sop_instance_uid for r in results] == [o.sop_instance_uid for o in objects]
    written = {p.name: p.read_bytes() for p in share.folder.iterdir()}
    assert written == {f"overlay-{o.sop_instance_uid}.dcm": o.path.read_bytes() for o in objects}


def test_the_same_object_again_is_already_there(share, objects):
    share.send(objects)
    assert {r.outcome for r in share.send(objects)} == {Outcome.ALREADY_THERE}


def test_another_content_under_one_uid_is_refused(share, objects):
    share.send(objects)
    before = {p: p.read_bytes() for p in share.folder.iterdir()}
    change(objects[0].path, StudyDescription="changed")
    results = share.send(objects)
    assert [r.outcome for r in results] == [Outcome.REFUSED, Outcome.ALREADY_THERE]
    assert {p: p.read_bytes() for p in share.folder.iterdir()} == before


def test_an_absent_folder_is_never_made(share, objects):
    share.folder.rmdir()
    with pytest.raises(PeerUnreachable, match="share"):
        share.send(objects)
    assert not share.folder.exists()


def test_a_write_that_fails_leaves_nothing_and_is_tried_again(share, objects, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        results = share.send(objects)
    assert [(r.outcome, r.text) for r in results] == [
        (Outcome.TRY_LATER, "cannot write: No space left on device")
    ] * 2
    assert list(share.folder.iterdir()) == []
    assert {r.outcome for r in share.send(objects)} == {Outcome.STORED}


def test_a_uid_never_becomes_a_path(share, objects, tmp_path):
    bad = ResultObject("overlay", objects[0].path, "1.2", "../../escaped", "1.2.840.10008.1.2.1")
    assert share.send([bad])[0].outcome is Outcome.REFUSED
    assert list(share.folder.iterdir()) == []
