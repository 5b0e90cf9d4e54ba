"""Files: content-addressed blobs, and result sets that are written once.

Layout below the root:

    blobs/ab/abcdef….dcm     one received instance; the name is the SHA-256 of its bytes
    quarantine/abcdef….dcm   a blob that was set aside: a person looks at it, and removes it
    sets/<key>/…             one result set, committed as a whole
    tmp/                     files that are being written; swept at start

Names are made from digests and keys of the node, never from a value that a peer sent. Several hosts may share
one root: a file has a unique temporary name until it is complete.
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
from typing import TYPE_CHECKING, BinaryIO

from msnode.errors import ConfigurationError, OutOfResources, StoredBytesChanged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from mmap import mmap

_KEY = re.compile(r"[a-z0-9-]{1,80}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_QUARANTINE = "quarantine"
_BLOB_FOLDERS = [f"{number:02x}" for number in range(256)]
_CHUNK_BYTES, _MOST_COPIED = 2**20, 2**30
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


def _write_all(handle: int, parts: Iterable[bytes | bytearray | mmap]) -> None:
    """Write all parts with as few system calls as possible, because each releases the interpreter lock."""
    left = [memoryview(part) for part in parts]
    while left:
        written = os.writev(handle, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:
            left[0] = left[0][written:]


def check_digest(path: Path, sha256: str) -> None:
    """Compare the bytes of a file with their recorded SHA-256 (64 hex digits).

    Raises:
        StoredBytesChanged: they are others.
        OutOfResources: the file is missing, or cannot be read now.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OutOfResources(f"{path.name} cannot be read: {error.strerror}") from error
    if found != sha256:
        raise StoredBytesChanged(f"{path.parent.name}/{path.name} has SHA-256 {found}, recorded is {sha256}")


def quarantined(root: Path) -> tuple[str, ...]:
    """Names of the blobs that were set aside, as recorded, in the store at `root`; it need not exist."""
    return tuple(sorted(path.stem for path in (root / _QUARANTINE).glob("*.dcm")))


def _copy_all(handle: int, file: BinaryIO) -> None:
    """Append a whole file within the kernel."""
    offset = 0
    while copied := os.sendfile(handle, file.fileno(), offset, _MOST_COPIED):
        offset += copied


class Blob:
    """Bytes in parts, and the SHA-256 of all of them (`digest`, 64 hex digits).

    Args:
        parts: in memory.
        file: holds the bytes that follow, from its beginning to its end. It must stay open.
    """

    def __init__(self, *parts: bytes | bytearray | mmap, file: BinaryIO | None = None) -> None:
        hasher = hashlib.sha256()
        for part in parts:
            hasher.update(part)
        self.parts, self.file = parts, file
        self.size = sum(map(len, parts))
        if file is not None:
            file.seek(0)
            while chunk := file.read(_CHUNK_BYTES):
                hasher.update(chunk)
                self.size += len(chunk)
        self.digest = hasher.hexdigest()


class Store:
    """Blobs and result sets on one local or shared file system.

    Args:
        root: the folder; created where it is missing.
        durable: False to skip every sync of blobs, in tests and benchmarks only.

    Raises:
        ConfigurationError: the folder cannot be created or written.
        OutOfResources: the file system is full, or its server does not answer.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self._durable = durable
        self._writer, self._numbers = secrets.token_hex(8), itertools.count()
        try:
            self._make_folders()
        except OSError as error:
            raise _unusable(root, error) from error

    @property
    def temporary(self) -> Path:
        """Folder for files that are being written."""
        return self.root / "tmp"

    def _make_folders(self) -> None:
        for folder in ("blobs", "sets", "tmp", _QUARANTINE):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        blobs = self.root / "blobs"
        # All at once: a folder created for an instance would need a sync of its own before the answer.
        missing = set(_BLOB_FOLDERS).difference(os.listdir(blobs))  # noqa: PTH208 - names, not paths
        for name in missing:
            (blobs / name).mkdir(exist_ok=True)
        if missing:
            self._sync_directory(self.root)
            self._sync_directory(blobs)

    def put(self, blob: Blob) -> None:
        """Write bytes durably: when this returns, file and name survive a power cut.

        Bytes that are present are not written again; their time of writing is updated (see `blobs`). A blob
        that has changed is set aside, and it is written anew.

        Raises:
            OutOfResources: the bytes cannot be written, for example because the disk is full.
        """
        path = self.blob_path(blob.digest)
        try:
            try:
                os.utime(path)
                os.utime(path.parent)
                self.checked_blob(blob.digest)
            except (FileNotFoundError, OutOfResources, StoredBytesChanged):
                self._write(path, blob)
            # Also where the file existed: its writer may have been killed before this sync.
            self._sync_directory(path.parent)
        except OSError as error:
            raise OutOfResources(f"cannot store {blob.size} bytes: {error.strerror}") from error

    def _write(self, path: Path, blob: Blob) -> None:
        """Sync the bytes before the file gets its name, so that every visible blob is complete."""
        temporary = self.root / "tmp" / f"{self._writer}-{next(self._numbers)}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            try:
                _write_all(handle, blob.parts)
                if blob.file is not None:
                    _copy_all(handle, blob.file)
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
        """Path of the blob with this digest, whether it exists or not.

        Raises:
            ValueError: it is not a SHA-256 in hex digits.
        """
        if not _DIGEST.match(digest):
            raise ValueError("the digest of a blob has 64 hex digits")
        return self.root / "blobs" / digest[:2] / f"{digest}.dcm"

    def has_blob(self, digest: str) -> bool:
        """Whether the blob exists."""
        try:
            # Opened, because a network file system answers stat() from its cache.
            os.close(os.open(self.blob_path(digest), os.O_RDONLY))
        except FileNotFoundError:
            return False
        return True

    def blobs(self, *, since: float = 0) -> Iterator[str]:
        """Digests of the blobs put at or after `since`, in seconds since the epoch."""
        for name in _BLOB_FOLDERS:
            folder = self.root / "blobs" / name
            if folder.stat().st_mtime < since:
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    digest = entry.name.removesuffix(".dcm")
                    with suppress(FileNotFoundError):  # retention has removed it meanwhile
                        if _DIGEST.match(digest) and entry.stat().st_mtime >= since:
                            yield digest

    def remove(self, digest: str) -> None:
        """Remove a blob; does nothing where it does not exist.

        Raises:
            OutOfResources: the file system cannot remove it.
        """
        try:
            self.blob_path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise OutOfResources(f"cannot remove a blob: {error.strerror}") from error

    def checked_blob(self, digest: str) -> Path:
        """Path of a blob whose bytes are those that were recorded; one that has changed is set aside.

        Raises:
            StoredBytesChanged: it has changed.
            OutOfResources: it is missing, or cannot be read or moved now.
        """
        path = self.blob_path(digest)
        try:
            check_digest(path, digest)
        except StoredBytesChanged:
            self.set_aside(digest)
            raise
        return path

    def set_aside(self, digest: str) -> None:
        """Move a blob into the quarantine folder, durably; does nothing where it does not exist.

        Raises:
            OutOfResources: the file system cannot move it.
        """
        path = self.blob_path(digest)
        try:
            with suppress(FileNotFoundError):
                path.replace(self.root / _QUARANTINE / path.name)
            self._sync_directory(self.root / _QUARANTINE)
            self._sync_directory(path.parent)
        except OSError as error:
            raise OutOfResources(f"cannot set a blob aside: {error.strerror}") from error

    @contextmanager
    def new_set(self, key: str) -> Iterator[Path]:
        """Yield a temporary folder that becomes the set `key` when the block ends without an error.

        The first complete set wins. Where `key` exists by then, this folder is discarded, so that a set never
        changes once it can be read.

        Raises:
            OutOfResources: the disk is full.
            ValueError: see `set_path`.
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
        """Path of the set `key`, whether it exists or not.

        Raises:
            ValueError: a key has 1-80 lower-case letters, digits and hyphens.
        """
        if not _KEY.match(key):
            raise ValueError(f"not a key of a result set: {key!r}")
        return self.root / "sets" / key

    def has_set(self, key: str) -> bool:
        """Whether the set was committed."""
        return self.set_path(key).is_dir()

    def free_bytes(self) -> int:
        """Free bytes on the file system.

        Raises:
            OutOfResources: the file system does not answer.
        """
        try:
            return shutil.disk_usage(self.root).free
        except OSError as error:
            raise OutOfResources(f"cannot read the free space: {error.strerror}") from error

    def sweep(self, *, older_than_s: float = 0) -> None:
        """Remove temporary files of processes that were killed.

        Args:
            older_than_s: seconds since the last change of a file or folder that is removed; 0 only where no
                process is writing.
        """
        before = time.time() - older_than_s
        for path in (self.root / "tmp").iterdir():
            with suppress(FileNotFoundError):  # its writer has finished
                if path.stat().st_mtime > before:
                    continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def self_test(self) -> None:
        """Test what durability needs: sync, exclusive creation, and renames that never replace a full folder.

        Raises:
            ConfigurationError: the file system does not support it.
            OutOfResources: the file system is full, or its server does not answer.
        """
        try:
            with tempfile.TemporaryDirectory(dir=self.root / "tmp") as name:
                fault = _fault_of(Path(name))
        except OSError as error:
            raise _unusable(self.root, error) from error
        if fault:
            raise ConfigurationError(f"{self.root} cannot be used: {fault}")


def _unusable(root: Path, error: OSError) -> ConfigurationError | OutOfResources:
    """The error for a folder that cannot be used: permanent ones need a person, others may pass."""
    kind = ConfigurationError if error.errno in _PERMANENT else OutOfResources
    return kind(f"data_dir: {root} cannot be used: {error.strerror}")


def _fault_of(folder: Path) -> str:
    """Test the file system of an empty folder; returns what is wrong, or an empty string."""
    one, other = folder / "one", folder / "other"
    with one.open("xb") as file:
        file.write(b"1")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        one.open("xb").close()
        return "exclusive creation replaces an existing file"
    one.replace(other)
    fsync_directory(folder)
    if one.exists() or other.read_bytes() != b"1":
        return "a renamed file has lost its content"
    for name in ("first", "second"):
        (folder / name).mkdir()
        (folder / name / name).touch()
    with suppress(OSError):
        (folder / "second").rename(folder / "first")
        return "a rename replaces an existing folder"
    return ""
