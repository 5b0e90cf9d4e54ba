"""A sender for machines without DCMTK: `python -m msnode.demo.send HOST PORT AE-TITLE FILE…`."""

from __future__ import annotations

import sys
from pathlib import Path

from pydicom import dcmread

from msnode.dicom.association import open_association
from msnode.dicom.connection import DicomAddress
from msnode.dicom.contexts import Context
from msnode.errors import Transient

_CALLING_AE = "DEMOSCANNER"
_MAX_CONTEXTS = 128  # PS3.8 9.3.2.2


def send(address: DicomAddress, paths: list[Path]) -> int:
    """Send the files over one association and return how many the peer did not accept.

    Raises:
        Transient: the association was not established or was lost.
    """
    contexts = {path: _context(path) for path in paths}
    distinct = list(dict.fromkeys(contexts.values()))[:_MAX_CONTEXTS]
    with open_association(address, _CALLING_AE, distinct) as association:
        taken = sum(
            association.accepts(context) and association.store(path).status == 0
            for path, context in contexts.items()
        )
    return len(paths) - taken


def _context(path: Path) -> Context:
    meta = dcmread(path, specific_tags=[], stop_before_pixels=True).file_meta
    return Context(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))


def main() -> None:
    """Exit 0: all were accepted. Exit 1: some were not, or the peer is unreachable."""
    host, port, ae_title, *files = sys.argv[1:]
    try:
        refused = send(DicomAddress(ae_title, host, int(port)), [Path(f) for f in files])
    except Transient as error:
        sys.exit(str(error))
    if refused:
        sys.exit(f"{refused} of {len(files)} images were not accepted")


if __name__ == "__main__":
    main()
