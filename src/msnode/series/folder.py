"""The DICOM files in a folder, for commands that work without a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msnode.errors import NotReadable
from msnode.series.volume import read_instance

if TYPE_CHECKING:
    from pathlib import Path

    from msnode.domain.imaging import Instance

_PREAMBLE = 128


def instances_below(path: Path) -> list[Instance]:
    """Every DICOM file below a folder, or the one file, by name; each content once.

    Files of another kind (notes, DICOMDIR readers) are left out.

    Raises:
        NotReadable: no DICOM file, or a DICOM file that is damaged.
    """
    files = sorted(p for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
    found: dict[str, Instance] = {}
    for file in files:
        try:
            instance = read_instance(file)
        except NotReadable:
            if _says_dicom(file):
                raise
            continue
        found.setdefault(instance.digest, instance)
    if not found:
        raise NotReadable(f"no DICOM file among the {len(files)} files in {path}")
    return list(found.values())


def _says_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(_PREAMBLE)
        return file.read(4) == b"DICM"
