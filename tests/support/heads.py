"""Series of a drawn head that the built-in model takes for one: it refuses what holds no brain."""

from functools import cache
from pathlib import Path

import numpy as np
import pydicom

from msnode.demo.phantom import make_patient
from msnode.domain.imaging import Volume
from support.dicom_files import flair_series


@cache
def head() -> Volume:
    return make_patient(seed=3).volume


def head_series(folder: Path, slices: int = 20, **changes: str) -> list[Path]:
    """Axial FLAIR slices of the head in `folder`; `changes` as `flair_series` takes them."""
    grid, data = head().grid, np.clip(head().data, 0, 65535).astype(np.uint16)
    more = max(0, slices - len(data))
    pixels = np.pad(data, ((0, more), (0, 0), (0, 0)), mode="edge")[:slices]
    return flair_series(folder, pixels=pixels, spacing=grid.spacing, **changes)


def study_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)
