"""The DICOM files in a folder, for commands that work without a node."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pydicom.filereader import read_file_meta_info
from pydicom.uid import MediaStorageDirectoryStorage

from msnode.dicom.header import PARSER_ERRORS, text
from msnode.dicom.uids import MR_IMAGE_CLASSES
from msnode.errors import NotReadable
from msnode.series.comparison import same_image
from msnode.series.volume import read_instance

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from msnode.domain.imaging import Instance

_PREAMBLE = 128
_PREFIX = b"DICM"
_FIRST_TAGS = {  # (0002,0000), (0002,0001) and (0008,0000) to (0008,0018), in both byte orders
    group.to_bytes(2, order) + element.to_bytes(2, order)
    for group, elements in ((0x0002, range(2)), (0x0008, range(0x19)))
    for element in elements
    for order in ("little", "big")
}


def instances_below(path: Path) -> tuple[list[Instance], tuple[str, ...]]:
    """Every DICOM file below a folder, or the one file, by name; each image once.

    A DICOMDIR and hidden files are no images; whatever else is left out is said.

    Returns:
        The instances, and a sentence for each reason why files were left out.

    Raises:
        NotReadable: no DICOM file, a DICOM file that is damaged or lacks its prefix, or several images under
            one SOP Instance UID.
    """
    files = sorted(p for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
    files = [p for p in files if p == path or not p.name.startswith(".")]
    found: dict[str, Instance] = {}
    other: list[Path] = []
    for file in files:
        try:
            instance = read_instance(file)
        except NotReadable:
            if _says_dicom(file):
                if _is_directory(file):
                    continue
                raise
            other.append(file)
        else:
            found.setdefault(instance.digest, instance)
    bare = sum(map(_is_bare, other))
    if bare:
        raise NotReadable(
            f"{bare} of {len(files)} files are DICOM data sets without preamble and DICM prefix (PS3.10 7.1):"
            " write them as DICOM files first"
        )
    if not found:
        raise NotReadable(f"no DICOM file among the {len(files)} files in {path}")
    instances, versions = _one_image_a_uid(list(found.values()))
    said = ((len(other), "no DICOM files"), (versions, "other headers of images that are there"))
    return instances, tuple(
        f"{count} of {len(files)} files in the folder were left out: {what}" for count, what in said if count
    )


def _one_image_a_uid(instances: Sequence[Instance]) -> tuple[list[Instance], int]:
    """One instance for each UID, the newest file of several headers, and how many were left out.

    Raises:
        NotReadable: several images under one SOP Instance UID.
    """
    under: defaultdict[tuple[str, ...], list[Instance]] = defaultdict(list)
    for instance in instances:
        keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        under[tuple(text(instance.header, keyword) for keyword in keywords)].append(instance)
    for first, *others in under.values():
        is_image = first.sop_class_uid in MR_IMAGE_CLASSES
        if is_image and not all(same_image(first.path, other.path) for other in others):
            raise NotReadable(
                f"{len(others) + 1} images under one SOP Instance UID: results could not reference them"
            )
    kept = [max(same, key=lambda i: (i.path.stat().st_mtime, i.path)) for same in under.values()]
    return kept, len(instances) - len(kept)


def _says_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(_PREAMBLE)
        return file.read(len(_PREFIX)) == _PREFIX


def _is_directory(path: Path) -> bool:
    """Whether a DICOM file is the directory of exchange media (DICOMDIR, PS3.10 8.6)."""
    try:
        meta = read_file_meta_info(path)
    except PARSER_ERRORS:
        return False
    return text(meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage


def _is_bare(path: Path) -> bool:
    """Whether a file without the prefix at its place begins as a data set or file meta information does."""
    with path.open("rb") as file:
        start = file.read(len(_PREFIX))
    return start == _PREFIX or start in _FIRST_TAGS
