"""What a test needs from the machine: shared data and peer programs.

Missing at home: the test is skipped with the reason. Missing in CI: the test fails.
"""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_PEERS = {
    "orthanc": ("/usr/sbin/Orthanc", "orthanc"),
    "orthanc-dicomweb": ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "orthanc-dicomweb"),
    "storescu": ("/usr/bin/storescu", "dcmtk"),
    "storescp": ("/usr/bin/storescp", "dcmtk"),
    "echoscu": ("/usr/bin/echoscu", "dcmtk"),
    "dcmdump": ("/usr/bin/dcmdump", "dcmtk"),
    "dcm2json": ("/usr/bin/dcm2json", "dcmtk"),
    "dsrdump": ("/usr/bin/dsrdump", "dcmtk"),
    "dicomtonifti": ("/usr/bin/dicomtonifti", "vtk-dicom-tools"),
    "dciodvfy": ("/usr/bin/dciodvfy", "dicom3tools"),
    "dcentvfy": ("/usr/bin/dcentvfy", "dicom3tools"),
    "chromium": ("/usr/bin/chromium", "chromium"),
    "java": ("/usr/bin/java", "default-jre-headless"),
    "postgres": ("/usr/lib/postgresql/15/bin/postgres", "postgresql"),
    "pixelmed": ("/usr/share/java/pixelmed.jar", "libpixelmed-java"),
}


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() == "true"


def missing(what: str) -> None:
    """Skip at home, fail in CI."""
    if in_ci():
        pytest.fail(what)
    pytest.skip(what)


def data_root() -> Path:
    """Where the shared data would lie, whether or not it does."""
    return Path(os.environ.get("MSNODE_DATA") or ROOT.parent / "shared" / "data")


def shared_data(relative: str = "") -> Path:
    """A path in the shared data folder; skips or fails where it is absent."""
    path = data_root() / relative
    if not path.exists():
        missing(f"no shared data at {path}: set MSNODE_DATA to the folder that holds it")
    return path


def peer(name: str) -> str:
    """Full path of a peer program; skips or fails where it is not installed."""
    path, package = _PEERS[name]
    if not Path(path).exists():
        missing(f"{path} is missing: apt-get install {package}")
    return shutil.which(path) or path
