import errno
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from msnode.errors import ConfigurationError, OutOfResources, StoredBytesChanged
from msnode.store import Blob, Store, quarantined
from support.disks import small_disk

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def put(store, *parts):
    blob = Blob(*parts)
    store.put(blob)
    return blob.digest


def in_tmp(store):
    return list((store.root / "tmp").iterdir())


@contextmanager
def called_instead(monkeypatch, name, instead):
    with monkeypatch.context() as patch:
        patch.setattr(os, name, instead)
        yield


def test_bytes_are_named_by_their_digest(store):
    digest = put(store, b"one ", b"two")
    assert digest == hashlib.sha256(b"one two").hexdigest()
    assert store.blob_path(digest).read_bytes() == b"one two"
    assert store.has_blob(digest)
    assert not store.has_blob("ab" * 32)
    assert list(store.blobs()) == [digest]


def test_equal_bytes_are_written_once_and_count_as_new(store):
    digest = put(store, b"x")
    path = store.blob_path(digest)
    os.utime(path, times=(1000, 1000))
    before = path.stat().st_ino
    assert list(store.blobs(since=2000)) == []
    assert put(store, b"x") == digest
    assert path.stat().st_ino == before
    assert list(store.blobs(since=2000)) == [digest]


def test_what_is_not_a_blob_is_none(store):
    (store.root / "blobs" / "ab" / "notes.txt").write_text("left by somebody")
    assert list(store.blobs()) == []


@pytest.mark.parametrize("again", [False, True])
def test_bytes_are_synced_before_they_have_their_name_and_the_name_before_put_returns(
    store, monkeypatch, again
):
    if again:
        put(store, b"payload")
    path, done = store.blob_path(Blob(b"payload").digest), []

    def sync(what):
        return lambda fd: done.append((what, str(Path(f"/proc/self/fd/{fd}").readlink()), path.exists()))

    with (
        called_instead(monkeypatch, "fdatasync", sync("data")),
        called_instead(monkeypatch, "fsync", sync("name")),
    ):
        put(store, b"payload")
    *data, name = done
    assert name == ("name", str(path.parent), True)
    if again:
        assert data == []
    else:
        ((what, where, was_there),) = data
        assert (what, was_there) == ("data", False)
        assert Path(where).parent == store.root / "tmp"


def test_no_room_is_out_of_resources_and_leaves_nothing(store, monkeypatch):
    def full(_fd):
        raise FULL

    with called_instead(monkeypatch, "fdatasync", full), pytest.raises(OutOfResources, match="No space left"):
        put(store, b"payload")
    assert list(store.blobs()) == []
    assert in_tmp(store) == []


@pytest.fixture
def filling(tmp_path):
    """A store on a file system of 4 MiB."""
    with small_disk(tmp_path / "disk", mib=4) as disk:
        yield Store(disk)


def test_full_disk_in_the_middle_of_a_write(filling):
    store = filling
    kept = put(store, os.urandom(2**20))
    for _ in range(3):
        with pytest.raises(OutOfResources, match="No space left"):
            put(store, os.urandom(4 * 2**20))
        assert in_tmp(store) == []
    with pytest.raises(OutOfResources, match="No space left"), store.new_set("job-1-0") as folder:
        (folder / "a").write_bytes(os.urandom(4 * 2**20))
    assert not store.has_set("job-1-0")
    assert list(store.blobs()) == [kept]
    assert hashlib.sha256(store.blob_path(kept).read_bytes()).hexdigest() == kept
    store.remove(kept)
    put(store, os.urandom(2 * 2**20))


def test_folder_that_has_gone_is_out_of_resources(store):
    (store.root / "tmp").rmdir()
    with pytest.raises(OutOfResources):
        put(store, b"x")


@pytest.mark.parametrize("same", [False, True])
def test_threads_put_at_once(store, same):
    contents = [b"same" if same else bytes([n]) for n in range(64)]
    with ThreadPoolExecutor(16) as pool:
        digests = set(pool.map(lambda content: put(store, content), contents))
    assert set(store.blobs()) == digests
    assert len(digests) == len(set(contents))
    assert in_tmp(store) == []


def test_removed_bytes_are_gone_and_may_come_back(store):
    digest = put(store, b"x")
    store.remove(digest)
    assert not store.has_blob(digest)
    store.remove(digest)
    assert put(store, b"x") == digest


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
    assert in_tmp(store) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("where", ["in the block", "fsync", "rename", "mkdir"])
def test_set_that_finds_no_room_leaves_nothing(store, monkeypatch, where, number):
    def full(*_, **__):
        raise OSError(number, "no room")

    patched = {"fsync": (os, "fsync"), "rename": (Path, "rename"), "mkdir": (os, "mkdir")}.get(where)
    if patched:
        monkeypatch.setattr(*patched, full)
    with pytest.raises(OutOfResources, match="job-1-0: no room"), store.new_set("job-1-0") as folder:  # noqa: PT012 - the block is the subject
        (folder / "a").write_bytes(b"1")
        if where == "in the block":
            full()
    monkeypatch.undo()
    assert not store.has_set("job-1-0")
    assert in_tmp(store) == []


def test_another_error_in_the_block_stays_what_it_is(store):
    with pytest.raises(PermissionError), store.new_set("job-1-0"):
        raise PermissionError(errno.EACCES, "not allowed")


def test_sweep_removes_what_a_kill_left(store):
    (store.root / "tmp" / "half").write_bytes(b"x")
    (store.root / "tmp" / "folder").mkdir()
    store.sweep(older_than_s=3600)
    assert len(in_tmp(store)) == 2, "somebody may be writing"
    store.sweep()
    assert in_tmp(store) == []


def test_self_test_passes_where_everything_works_and_leaves_nothing(store):
    store.self_test()
    assert in_tmp(store) == []


def test_self_tests_of_several_hosts_do_not_disturb_each_other(store):
    others = [Store(store.root) for _ in range(8)]
    start = threading.Barrier(8)

    def test(other):
        start.wait()
        other.self_test()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(test, others))


def _overwriting_rename(self, target):
    import shutil  # noqa: PLC0415 - only this file system overwrites folders

    shutil.rmtree(target)
    os.rename(self, target)  # noqa: PTH104 - the method is what is replaced


def _no_sync(_fd):
    raise OSError(errno.EINVAL, "Invalid argument")


def _forgetful_replace(_self, target):
    target.write_bytes(b"")


def _shared_open(self, mode, _open=Path.open):
    return _open(self, mode.replace("x", "w"))


@pytest.mark.parametrize(
    ("patched", "fault"),
    [
        ((os, "fsync", _no_sync), "Invalid argument"),
        ((Path, "rename", _overwriting_rename), "a rename replaces an existing folder"),
        ((Path, "replace", _forgetful_replace), "has lost its content"),
        ((Path, "open", _shared_open), "exclusive creation"),
    ],
)
def test_self_test_says_what_the_file_system_does_not_do(store, monkeypatch, patched, fault):
    with monkeypatch.context() as patch:
        patch.setattr(*patched)
        with pytest.raises(ConfigurationError, match=fault):
            store.self_test()


def test_self_test_of_a_full_disk_is_out_of_resources(store, monkeypatch):
    def full(_fd):
        raise FULL

    with called_instead(monkeypatch, "fsync", full), pytest.raises(OutOfResources, match="No space left"):
        store.self_test()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EROFS, ConfigurationError),
        (errno.EACCES, ConfigurationError),
        (errno.ENOSPC, OutOfResources),
        (errno.EIO, OutOfResources),  # a file server that is just restarting
        (errno.ESTALE, OutOfResources),
    ],
)
@pytest.mark.parametrize("when", ["opened", "tested"])
def test_a_folder_that_cannot_be_used_is_a_mistake_or_passes(tmp_path, monkeypatch, number, kind, when):
    def fails(*_args, **_options):
        raise OSError(number, os.strerror(number))

    store = Store(tmp_path / "store")
    monkeypatch.setattr(Path, "mkdir", fails) if when == "opened" else monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(kind, match=f"data_dir: .*store cannot be used: {os.strerror(number)}"):
        Store(tmp_path / "store") if when == "opened" else store.self_test()


def test_a_blob_that_has_changed_is_set_aside_and_written_anew(store):
    blob = Blob(b"as it came")
    store.put(blob)
    path = store.blob_path(blob.digest)
    assert store.checked_blob(blob.digest) == path
    path.write_bytes(b"as it cane")
    with pytest.raises(StoredBytesChanged, match=blob.digest):
        store.checked_blob(blob.digest)
    assert (store.has_blob(blob.digest), quarantined(store.root)) == (False, (blob.digest,))
    with pytest.raises(OutOfResources):
        store.checked_blob(blob.digest)
    path.write_bytes(b"as it cane")
    store.put(blob)
    assert store.checked_blob(blob.digest).read_bytes() == b"as it came"


def test_to_set_aside_what_is_not_there_does_nothing(store, tmp_path):
    store.set_aside("ab" * 32)
    assert quarantined(store.root) == quarantined(tmp_path / "no store") == ()
