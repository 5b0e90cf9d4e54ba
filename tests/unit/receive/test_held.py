import errno
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from msnode.receive import held
from msnode.receive.held import Disk, Held, Memory


def test_memory_is_reserved_and_released() -> None:
    memory = Memory(100)
    assert memory.reserve(60)
    assert not memory.reserve(41)
    assert memory.reserve(40)
    memory.release(60)
    assert memory.reserve(60)


def test_many_threads_never_reserve_more_than_there_is() -> None:
    memory = Memory(1000)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: memory.reserve(30), range(100)))
    assert sum(taken) == 33


def fragment(content: bytes) -> memoryview:
    """A fragment as it comes in: a small part of a large buffer."""
    buffer = memoryview(bytearray(256 * 1024))
    buffer[: len(content)] = content
    return buffer[: len(content)]


def test_of_a_small_fragment_only_its_bytes_are_kept() -> None:
    one = Held(Memory(10**6), None)
    tracemalloc.start()
    try:
        for _ in range(2000):
            assert one.take(fragment(b"ab"))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 64 * 1024
    assert bytes(one.complete()) == b"ab" * 2000


def test_what_is_held_is_reserved_and_released() -> None:
    memory = Memory(1000)
    one = Held(memory, None)
    assert one.take(fragment(bytes(400)))
    assert memory._free == 1000 - 450
    assert not one.take(fragment(bytes(600)))
    one.drop()
    assert memory._free == 1000


@pytest.fixture
def small_threshold(monkeypatch) -> None:
    monkeypatch.setattr(held, "_SPOOL_BYTES", 100)


@pytest.mark.usefixtures("small_threshold")
def test_a_large_data_set_is_on_disk_and_not_in_memory(tmp_path: Path) -> None:
    memory = Memory(200)
    one = Held(memory, Disk(tmp_path, 0))
    for number in range(100):
        assert one.take(fragment(bytes([number]) * 60))
    assert one.size == 6000
    whole = one.complete()
    assert bytes(whole) == b"".join(bytes([number]) * 60 for number in range(100))
    assert one.file is not None
    assert list(tmp_path.iterdir()) == [], "the file has no name, so that nothing is left if the process dies"
    one.drop()
    assert memory._free == 200


@pytest.mark.usefixtures("small_threshold")
def test_a_full_disk_is_no_room(tmp_path: Path, monkeypatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert not Held(Memory(1000), Disk(tmp_path, 0)).take(fragment(bytes(200)))


@pytest.mark.usefixtures("small_threshold")
def test_what_must_stay_free_on_disk_is_not_taken(tmp_path: Path) -> None:
    assert not Held(Memory(1000), Disk(tmp_path, min_free_bytes=10**18)).take(fragment(bytes(200)))


def test_what_is_not_stored_stays_in_memory() -> None:
    one = Held(Memory(2 * held._SPOOL_BYTES), None)
    assert one.take(memoryview(bytes(held._SPOOL_BYTES + 1)))
    assert one.file is None
