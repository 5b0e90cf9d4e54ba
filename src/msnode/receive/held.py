"""The data set of one message while it comes in: counted as it is held, and on disk once it is large."""

from __future__ import annotations

import mmap
import shutil
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_SPOOL_BYTES = 8 * 2**20
"""Past so many bytes in memory, a data set that is to be stored goes to disk."""


class Memory:
    """Memory for the data sets of all associations together, up to a limit."""

    def __init__(self, allowed_bytes: int) -> None:
        self._free = allowed_bytes
        self._lock = threading.Lock()

    def reserve(self, count: int) -> bool:
        """Reserve `count` bytes; False, and none, if fewer are free."""
        with self._lock:
            if count > self._free:
                return False
            self._free -= count
            return True

    def release(self, count: int) -> None:
        """Release `count` reserved bytes."""
        with self._lock:
            self._free += count


@dataclass(frozen=True)
class Disk:
    """Where large data sets go, in files that have no name and end with the process.

    Attributes:
        folder: in the store's file system.
        min_free_bytes: what must stay free there.
    """

    folder: Path
    min_free_bytes: int

    def has_room(self, count: int) -> bool:
        """Whether `count` more bytes leave enough free."""
        return shutil.disk_usage(self.folder).free - count >= self.min_free_bytes


class Held:
    """Fragments of one data set, joined. They are copied, so that no buffer that they came in is kept.

    Args:
        memory: where the bytes that are held in memory are reserved.
        disk: where a large data set goes; None keeps it in memory.

    Attributes:
        file: the whole data set, if it is on disk.
        size: bytes taken so far.
    """

    def __init__(self, memory: Memory, disk: Disk | None) -> None:
        self._memory = memory
        self._disk = disk
        self._data = bytearray()
        self._reserved = 0
        self.file: BinaryIO | None = None
        self.size = 0

    def take(self, fragment: memoryview) -> bool:
        """Append a fragment; False if there is no room for it in memory or on disk."""
        wanted = len(self._data) + len(fragment)
        wanted += wanted // 8  # a bytearray grows by so much more
        if wanted > self._reserved:
            if not self._memory.reserve(wanted - self._reserved):
                return False
            self._reserved = wanted
        self._data += fragment
        self.size += len(fragment)
        return len(self._data) < _SPOOL_BYTES or self._disk is None or self._spool(self._disk)

    def complete(self) -> bytearray | mmap.mmap:
        """The whole data set. One on disk is mapped, so that reading its header reads no more than that.

        Raises:
            OSError: it cannot be written or mapped.
        """
        if self.file is None:
            return self._data
        self.file.write(self._data)
        self.file.flush()
        return mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)

    def drop(self) -> None:
        """Let go of the data and its memory."""
        self._data = bytearray()
        self.size = 0
        self._release()
        if self.file is not None:
            self.file.close()
            self.file = None

    def _release(self) -> None:
        self._memory.release(self._reserved)
        self._reserved = 0

    def _spool(self, disk: Disk) -> bool:
        try:
            if not disk.has_room(len(self._data)):
                return False
            if self.file is None:
                self.file = tempfile.TemporaryFile(dir=disk.folder, buffering=0)  # noqa: SIM115 - closed by `drop`
            self.file.write(self._data)
        except OSError:
            return False
        self._data = bytearray()
        self._release()
        return True
