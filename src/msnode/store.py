"""The home of bytes: content-addressed blobs, and result sets written once.

Layout below the root:

    blobs/ab/abcdef….dcm     one received instance; the name is the SHA-256 of its bytes
    sets/<key>/…             one result set, committed as a whole
    tmp/                     what is being written; swept at start

Names are made here, from digests and keys of our own, never from a value that a peer sent. Several hosts
may share one root: what is written has a name of its own until it is whole.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import secrets
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msnode.errors import ConfigurationError, OutOfResources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_KEY = re.compile(r"[a-z0-9-]{1,80}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_BLOB_FOLDERS = [f"{number:02x}" for number in range(256)]
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_PERMANENT = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EROFS, errno.ELOOP} | {
    errno.EINVAL, errno.ENOTSUP, errno.ENOSYS,
}  # fmt: skip


def fsync_directory(path: Path) -> None:
    """Make the names in a folder durable (POSIX fsync of a directory)."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, parts: Iterable[bytes]) -> None:
    """As few calls as can be: each lets another thread take the interpreter."""
    left = [memoryview(part) for part in parts]
    while left:
        written = os.writev(handle, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:
            left[0] = left[0][written:]


class Blob:
    """Bytes in parts, and the SHA-256 of them all (64 hex digits)."""

    def __init__(self, *parts: bytes) -> None:
        hasher = hashlib.sha256()
        for part in parts:
            hasher.update(part)
        self.parts = parts
        self.digest = hasher.hexdigest()


class Store:
    """Bytes on one local or shared file system.

    Raises:
        ConfigurationError: the folder cannot be made or written.
        OutOfResources: not now: it is full, or the machine that has it does not answer; later
            from `put` and `new_set`, where the disk has no room.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self._durable = durable
        self._writer, self._numbers = secrets.token_hex(8), itertools.count()
        try:
            self._make_folders()
        except OSError as error:
            raise _unusable(root, error) from error

    def _make_folders(self) -> None:
        for folder in ("blobs", "sets", "tmp"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        blobs = self.root / "blobs"
        # All at once: a folder made for an instance would have to be synced before that is answered.
        missing = set(_BLOB_FOLDERS).difference(os.listdir(blobs))  # noqa: PTH208 - names, not paths
        for name in missing:
            (blobs / name).mkdir(exist_ok=True)
        if missing:
            self._sync_directory(self.root)
            self._sync_directory(blobs)

    def put(self, blob: Blob) -> None:
        """Write bytes durably; when this returns, file and name survive a power cut.

        Bytes already present are not written again, but count as new from now on.
        """
        path = self.blob_path(blob.digest)
        try:
            try:
                os.utime(path)
                os.utime(path.parent)
            except FileNotFoundError:
                self._write(path, blob.parts)
            # Also where it was there: whoever wrote it may not have come so far.
            self._sync_directory(path.parent)
        except OSError as error:
            raise OutOfResources(
                f"cannot store {sum(map(len, blob.parts))} bytes: {error.strerror}"
            ) from error

    def _write(self, path: Path, parts: Iterable[bytes]) -> None:
        """The bytes are durable before they have their name: a blob that can be seen is whole."""
        temporary = self.root / "tmp" / f"{self._writer}-{next(self._numbers)}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            try:
                _write_all(handle, parts)
                if self._durable:
                    os.fdatasync(handle)
            finally:
                os.close(handle)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _sync_directory(self, path: Path) -> None:
        if self._durable:
            fsync_directory(path)

    def blob_path(self, digest: str) -> Path:
        """Where the blob with this digest lies or would lie."""
        if not _DIGEST.match(digest):
            raise ValueError("a blob is named by 64 hex digits")
        return self.root / "blobs" / digest[:2] / f"{digest}.dcm"

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there."""
        try:
            # Opened, not looked for: a network file system answers the latter from what it remembers.
            os.close(os.open(self.blob_path(digest), os.O_RDONLY))
        except FileNotFoundError:
            return False
        return True

    def blobs(self, *, since: float = 0) -> Iterator[str]:
        """Digests of the blobs that were put at this moment, in seconds since the epoch, or later."""
        for name in _BLOB_FOLDERS:
            folder = self.root / "blobs" / name
            if folder.stat().st_mtime < since:
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    digest = entry.name.removesuffix(".dcm")
                    with suppress(FileNotFoundError):  # retention took it meanwhile
                        if _DIGEST.match(digest) and entry.stat().st_mtime >= since:
                            yield digest

    def remove(self, digest: str) -> None:
        """Remove a blob, where it is there.

        Raises:
            OutOfResources: the file system does not let it go.
        """
        try:
            self.blob_path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise OutOfResources(f"cannot remove bytes: {error.strerror}") from error

    @contextmanager
    def new_set(self, key: str) -> Iterator[Path]:
        """A temporary folder that becomes the set `key` when the block ends without an error.

        The first complete set wins: where `key` exists by then, this writer's folder is discarded,
        so whoever reads the set afterwards sees one content for ever.
        """
        final = self.set_path(key)
        temporary: Path | None = None
        try:
            temporary = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
            yield temporary
            for path in temporary.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            fsync_directory(temporary)
            try:
                temporary.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
            fsync_directory(final.parent)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise OutOfResources(f"cannot write result set {key}: {error.strerror}") from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def set_path(self, key: str) -> Path:
        """Where the set `key` lies or would lie; keys are lower-case letters, digits and hyphens."""
        if not _KEY.match(key):
            raise ValueError(f"not a key for a result set: {key!r}")
        return self.root / "sets" / key

    def has_set(self, key: str) -> bool:
        """Whether the set was committed."""
        return self.set_path(key).is_dir()

    def free_bytes(self) -> int:
        """Room left on the file system.

        Raises:
            OutOfResources: the file system does not answer.
        """
        try:
            return shutil.disk_usage(self.root).free
        except OSError as error:
            raise OutOfResources(f"cannot ask for free room: {error.strerror}") from error

    def sweep(self, *, older_than_s: float = 0) -> None:
        """Remove what was being written when a process was killed.

        Args:
            older_than_s: leaves what was touched since; 0 only where nothing is writing.
        """
        before = time.time() - older_than_s
        for path in (self.root / "tmp").iterdir():
            with suppress(FileNotFoundError):  # its writer is done with it
                if path.stat().st_mtime > before:
                    continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def self_test(self) -> None:
        """Try what durability stands on: sync, exclusive names, and renaming that never overwrites a set.

        Raises:
            ConfigurationError: the file system does not do it.
            OutOfResources: not now: it has no room, or does not answer.
        """
        try:
            with tempfile.TemporaryDirectory(dir=self.root / "tmp") as name:
                fault = _fault_of(Path(name))
        except OSError as error:
            raise _unusable(self.root, error) from error
        if fault:
            raise ConfigurationError(f"{self.root} cannot be used: {fault}")


def _unusable(root: Path, error: OSError) -> ConfigurationError | OutOfResources:
    """What keeps a folder from being used: something that a person has to mend, or that passes."""
    kind = ConfigurationError if error.errno in _PERMANENT else OutOfResources
    return kind(f"data_dir: {root} cannot be used: {error.strerror}")


def _fault_of(folder: Path) -> str:
    """What is wrong with the file system of an empty folder; nothing where it is as it should be."""
    one, other = folder / "one", folder / "other"
    with one.open("xb") as file:
        file.write(b"1")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        one.open("xb").close()
        return "a name that is taken is given again"
    one.replace(other)
    fsync_directory(folder)
    if one.exists() or other.read_bytes() != b"1":
        return "a renamed file is not what it was"
    for name in ("first", "second"):
        (folder / name).mkdir()
        (folder / name / name).touch()
    with suppress(OSError):
        (folder / "second").rename(folder / "first")
        return "a folder that is taken is overwritten"
    return ""
