"""The home of bytes: content-addressed blobs, and result sets written once.

Layout below the root:

    blobs/ab/abcdef….dcm     one received instance; the name is the SHA-256 of its bytes
    sets/<key>/…             one result set, committed as a whole
    tmp/                     what is being written; swept at start

Names are made here, from digests and keys of our own, never from a value that a peer sent.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msnode.errors import OutOfResources

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEY = re.compile(r"[a-z0-9-]{1,80}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def fsync_directory(path: Path) -> None:
    """Make the names in a folder durable (POSIX fsync of a directory)."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Store:
    """Bytes on one local or shared file system.

    Raises:
        OutOfResources: from `put` and `new_set`, where the disk has no room.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self._durable = durable
        for folder in ("blobs", "sets", "tmp"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def put(self, *parts: bytes) -> str:
        """Write the concatenated `parts` durably; returns their SHA-256 (64 hex digits).

        Bytes already present are not written again. When this returns, file and name survive a
        power cut.
        """
        hasher = hashlib.sha256()
        for part in parts:
            hasher.update(part)
        digest = hasher.hexdigest()
        path = self.blob_path(digest)
        if path.exists():
            return digest
        try:
            self._write(path, parts)
        except OSError as error:
            raise OutOfResources(f"cannot store {sum(map(len, parts))} bytes: {error.strerror}") from error
        return digest

    def _write(self, path: Path, parts: tuple[bytes, ...]) -> None:
        if not path.parent.exists():
            path.parent.mkdir(exist_ok=True)
            self._sync_directory(path.parent.parent)
        handle, temporary = tempfile.mkstemp(dir=self.root / "tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._sync_directory(path.parent)

    def _sync_directory(self, path: Path) -> None:
        if self._durable:
            fsync_directory(path)

    def blob_path(self, digest: str) -> Path:
        """Where the blob with this digest lies or would lie."""
        if not _DIGEST.match(digest):
            raise ValueError("a blob is named by 64 hex digits")
        return self.root / "blobs" / digest[:2] / f"{digest}.dcm"

    def blobs(self) -> Iterator[str]:
        """Digests of all blobs."""
        for path in (self.root / "blobs").glob("??/*.dcm"):
            yield path.stem

    @contextmanager
    def new_set(self, key: str) -> Iterator[Path]:
        """A temporary folder that becomes the set `key` when the block ends without an error.

        The first complete set wins: where `key` exists by then, this writer's folder is discarded,
        so whoever reads the set afterwards sees one content for ever.
        """
        final = self.set_path(key)
        temporary = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
        try:
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
        finally:
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
        """Room left on the file system."""
        return shutil.disk_usage(self.root).free

    def sweep(self) -> None:
        """Remove what was being written when the node was last killed; call when nothing is writing."""
        for path in (self.root / "tmp").iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
