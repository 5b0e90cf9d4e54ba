"""The PACS of the demo on loopback: Orthanc if installed, else the built-in archive."""

from __future__ import annotations

import http.client
import json
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from msnode.demo import archive
from msnode.demo.processes import LOOPBACK, free_port, running, wait_until_ready
from msnode.dicom.association import echo
from msnode.dicom.connection import DicomAddress
from msnode.errors import PeerUnreachable, Transient

if TYPE_CHECKING:
    from collections.abc import Iterator

ORTHANC = Path("/usr/sbin/Orthanc")
_DICOM_WEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_READY_S = 60.0
_HTTP_OK = 200


@dataclass(frozen=True)
class Stored:
    """An object in the PACS, retrieved as a file."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


class Pacs(Protocol):
    """A PACS that a node can send to and whose content can be retrieved."""

    @property
    def name(self) -> str:
        """Name for display."""

    @property
    def address(self) -> DicomAddress:
        """Address of its storage SCP."""

    def results(self, study_instance_uid: str) -> tuple[Stored, ...]:
        """All objects of a study, in no particular order."""


@dataclass
class BuiltInArchive:
    """`msnode.demo.archive` in a separate process; the files in its folder are its content."""

    address: DicomAddress
    folder: Path
    name: str = "built-in archive"
    _known: dict[Path, tuple[str, Stored]] = field(default_factory=dict)

    def results(self, study_instance_uid: str) -> tuple[Stored, ...]:
        """All objects of a study."""
        for path in self.folder.glob(f"*{archive.SUFFIX}"):
            if path not in self._known:
                self._known[path] = _read_stored(path)
        return tuple(stored for study, stored in self._known.values() if study == study_instance_uid)


@dataclass
class Orthanc:
    """Orthanc with its storage in a separate folder.

    Attributes:
        http_port: port of its REST interface and Explorer.
        folder: where retrieved objects are written.
    """

    address: DicomAddress
    http_port: int
    folder: Path
    name: str = "Orthanc"
    _known: dict[str, Stored] = field(default_factory=dict)

    def results(self, study_instance_uid: str) -> tuple[Stored, ...]:
        """All objects of a study, retrieved over the REST interface.

        Raises:
            PeerUnreachable: Orthanc does not answer.
        """
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_instance_uid}}
        identifiers = json.loads(self._request("POST", "/tools/find", json.dumps(query)))
        for identifier in identifiers:
            if identifier not in self._known:
                path = self.folder / f"{identifier}.dcm"
                path.write_bytes(self._request("GET", f"/instances/{identifier}/file"))
                self._known[identifier] = _read_stored(path)[1]
        return tuple(self._known[identifier] for identifier in identifiers)

    def answers(self) -> bool:
        """Whether REST interface and DICOM port answer."""
        try:
            self._request("GET", "/system")
        except PeerUnreachable:
            return False
        return _echoes(self.address)

    def _request(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection(LOOPBACK, self.http_port, timeout=30)
        with closing(connection):
            try:
                connection.request(method, path, body)
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise PeerUnreachable(f"Orthanc does not answer {method} {path}: {error}") from None
        if response.status != _HTTP_OK:
            raise PeerUnreachable(f"Orthanc answers {method} {path} with {response.status}")
        return content


@contextmanager
def start_pacs(folder: Path) -> Iterator[Pacs]:
    """Start the best PACS available on this machine, empty, with all of its files in `folder`.

    Raises:
        Transient: it cannot be started or is not ready in time.
    """
    with start_orthanc(folder) if ORTHANC.exists() else start_archive(folder) as pacs:
        yield pacs


@contextmanager
def start_orthanc(folder: Path) -> Iterator[Orthanc]:
    """Start Orthanc, with DICOMweb if the plug-in is installed; see `start_pacs`."""
    read_back = folder / "objects"
    read_back.mkdir(parents=True, exist_ok=True)
    address = DicomAddress("ORTHANC", LOOPBACK, free_port())
    pacs = Orthanc(address, free_port(), read_back)
    config, log = folder / "orthanc.json", folder / "orthanc.log"
    config.write_text(json.dumps(_orthanc_config(pacs, folder / "storage")), encoding="utf-8")
    with running([str(ORTHANC), str(config)], log) as process:
        wait_until_ready(process, log, pacs.answers, what="Orthanc", deadline_s=_READY_S)
        yield pacs


def _orthanc_config(pacs: Orthanc, storage: Path) -> dict[str, Any]:
    return {
        "Name": "msnode demo",
        "StorageDirectory": str(storage),
        "IndexDirectory": str(storage),
        "HttpPort": pacs.http_port,
        "DicomPort": pacs.address.port,
        "DicomAet": pacs.address.ae_title,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DefaultEncoding": "Utf8",  # otherwise QIDO-RS omits characters beyond Latin-1
        "SaveJobs": False,
        "Plugins": [str(_DICOM_WEB)] if _DICOM_WEB.exists() else [],
        "DicomWeb": {"Enable": True},
    }


@contextmanager
def start_archive(folder: Path) -> Iterator[BuiltInArchive]:
    """Start the built-in archive; see `start_pacs`."""
    content, log = folder / "objects", folder / "archive.log"
    content.mkdir(parents=True, exist_ok=True)
    address = DicomAddress(archive.AE_TITLE, LOOPBACK, free_port())
    command = [sys.executable, "-m", "msnode.demo.archive", str(content), str(address.port)]
    with running(command, log) as process:
        wait_until_ready(
            process, log, lambda: _echoes(address), what="the built-in archive", deadline_s=_READY_S
        )
        yield BuiltInArchive(address, content)


def _echoes(address: DicomAddress) -> bool:
    try:
        return echo(address, "DEMO").status == 0
    except Transient:
        return False


def _read_stored(path: Path) -> tuple[str, Stored]:
    """Study Instance UID of a stored object, and the object.

    Raises:
        PeerUnreachable: the PACS returned a file that is not DICOM.
    """
    try:
        header = dcmread(path, stop_before_pixels=True)
    except InvalidDicomError as error:
        raise PeerUnreachable(f"the PACS returned a file that is not DICOM: {path.name}") from error
    stored = Stored(path, str(header.SOPClassUID), str(header.SOPInstanceUID), str(header.SeriesInstanceUID))
    return str(header.StudyInstanceUID), stored
