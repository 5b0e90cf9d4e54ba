"""Sends results: one module for each type of destination, one line for each in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msnode.deliver.dicom import DicomDestination
from msnode.deliver.dicomweb import DicomWebDestination
from msnode.deliver.folder import FolderDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from msnode.deliver.destination import Destination

DESTINATION_TYPES: Mapping[str, Callable[..., Destination]] = {
    "dicom": DicomDestination,
    "dicomweb": DicomWebDestination,
    "folder": FolderDestination,
}
"""`type` in the configuration → class. Each takes `name`, `objects` and what it needs to connect."""
