"""A folder, for a site that takes results from a share."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msnode.deliver.destination import Outcome, SendResult
from msnode.dicom.header import is_valid_uid
from msnode.errors import PeerUnreachable
from msnode.store import fsync_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.deliver.destination import ResultObject


@dataclass(frozen=True)
class FolderDestination:
    """A folder with one file for each object, named `<kind>-<SOP Instance UID>.dcm`.

    Attributes:
        name: its name in the configuration.
        objects: the kinds that it takes.
        folder: must exist. It is never created: if it is missing, a share may not be mounted.
    """

    name: str
    objects: frozenset[str]
    folder: Path

    def takes(self, kind: str) -> bool:
        """Whether `kind` is among `objects`."""
        return kind in self.objects

    def send(self, objects: Sequence[ResultObject]) -> tuple[SendResult, ...]:
        """Write each object atomically, so that readers see a whole file or none; see `Destination.send`.

        Raises:
            PeerUnreachable: the folder is missing.
        """
        if not self.folder.is_dir():
            raise PeerUnreachable(f"destination {self.name}: its folder is not there")
        return tuple(self._write(each) for each in objects)

    def _write(self, each: ResultObject) -> SendResult:
        uid = each.sop_instance_uid
        if not is_valid_uid(uid):
            return SendResult(uid, Outcome.REFUSED, None, "not a UID")
        target = self.folder / f"{each.kind}-{uid}.dcm"
        try:
            content = each.path.read_bytes()
            if target.exists():
                if target.read_bytes() == content:
                    return SendResult(uid, Outcome.ALREADY_THERE, None, "already there")
                return SendResult(uid, Outcome.REFUSED, None, "a file of this name has another content")
            _write_atomically(target, content)
        except OSError as error:
            return SendResult(uid, Outcome.TRY_LATER, None, f"cannot write: {error.strerror}")
        return SendResult(uid, Outcome.STORED, None, "stored")


def _write_atomically(target: Path, content: bytes) -> None:
    """Write beside the target, make the bytes durable, then rename."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's files are private; those on a share are there to be read
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(target.parent)
