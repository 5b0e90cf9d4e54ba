"""A small archive for machines without Orthanc: `python -m msnode.demo.archive FOLDER PORT`.

It stores every received object as a file and answers C-ECHO. It has no index and no access control, and is
meant for demonstrations on loopback only.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pynetdicom import AE, AllStoragePresentationContexts, evt

from msnode.dicom import library_settings

if TYPE_CHECKING:
    from types import FrameType

AE_TITLE = "ARCHIVE"
SUFFIX = ".dcm"
_VERIFICATION = "1.2.840.10008.1.1"
_SUCCESS = 0x0000
_CANNOT_STORE = 0xA700

library_settings.configure_pynetdicom()


class Archive:
    """A storage SCP that writes to `folder`; a file gets its final name only when it is complete."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._count = sum(1 for _ in folder.glob(f"*{SUFFIX}"))
        entity = AE(ae_title=AE_TITLE)
        entity.supported_contexts = AllStoragePresentationContexts
        entity.add_supported_context(_VERIFICATION)
        entity.maximum_pdu_size = 128 * 1024
        entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        self._entity = entity

    def close(self) -> None:
        """Stop listening and abort open associations."""
        self._entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        with self._lock:
            self._count += 1
            number = self._count
        path = self._folder / f"{number:06d}{SUFFIX}"
        try:
            temporary = path.with_suffix(".part")
            temporary.write_bytes(event.encoded_dataset())
            temporary.replace(path)
        except OSError:
            return _CANNOT_STORE
        return _SUCCESS


def main() -> None:
    """Listen until SIGTERM or SIGINT."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    archive = Archive(Path(sys.argv[1]), int(sys.argv[2]))
    try:
        stopped.wait()
    finally:
        archive.close()


if __name__ == "__main__":
    main()
