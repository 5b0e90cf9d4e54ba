import hashlib
import os
from pathlib import Path

import pytest

from msnode.errors import OutOfResources
from msnode.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_bytes_are_named_by_their_digest(store):
    digest = store.put(b"one ", b"two")
    assert digest == hashlib.sha256(b"one two").hexdigest()
    assert store.blob_path(digest).read_bytes() == b"one two"
    assert list(store.blobs()) == [digest]


def test_equal_bytes_are_written_once(store):
    digest = store.put(b"x")
    before = store.blob_path(digest).stat().st_ino
    assert store.put(b"x") == digest
    assert store.blob_path(digest).stat().st_ino == before


def test_file_and_folder_are_synced_before_put_returns(store, monkeypatch):
    store.put(b"makes the folder of the next blob certain not to be the first")
    synced = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())), real(fd))[1]
    )
    path = store.blob_path(store.put(b"payload"))
    assert str(path.parent) in synced
    assert any("tmp" in name.split("/") for name in synced)


def test_no_room_is_out_of_resources_and_leaves_nothing(store, monkeypatch):
    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfResources, match="No space left"):
        store.put(b"payload")
    assert list(store.blobs()) == []
    assert list((store.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "ab"])
def test_only_digests_name_blobs(store, name):
    with pytest.raises(ValueError, match="64 hex digits"):
        store.blob_path(name)


@pytest.mark.parametrize("key", ["../x", "", "A", "a/b", "a" * 81])
def test_only_keys_name_sets(store, key):
    with pytest.raises(ValueError, match="not a key"):
        store.set_path(key)


def test_a_set_appears_whole_or_not_at_all(store):
    with pytest.raises(KeyError), store.new_set("job-1-0") as folder:  # noqa: PT012 - the block is the subject
        (folder / "a").write_bytes(b"1")
        raise KeyError
    assert not store.has_set("job-1-0")
    with store.new_set("job-1-0") as folder:
        (folder / "a").write_bytes(b"1")
        assert not store.has_set("job-1-0")
    assert (store.set_path("job-1-0") / "a").read_bytes() == b"1"


def test_the_first_set_stays(store):
    for content in (b"first", b"second"):
        with store.new_set("job-1-0") as folder:
            (folder / "a").write_bytes(content)
    assert (store.set_path("job-1-0") / "a").read_bytes() == b"first"
    assert list((store.root / "tmp").iterdir()) == []


def test_sweep_removes_what_a_kill_left(store):
    (store.root / "tmp" / "half").write_bytes(b"x")
    (store.root / "tmp" / "folder").mkdir()
    store.sweep()
    assert list((store.root / "tmp").iterdir()) == []
