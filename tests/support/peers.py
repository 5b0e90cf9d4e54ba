"""Real peers on free ports: Orthanc and DCMTK, started for a test and ended by process id.

A peer is handed out once it answers; a peer that dies before that fails the test with its own output.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from pynetdicom import AE, evt

from support.environment import peer

Result = TypeVar("Result")

_START_S = 60
_POLL_S = 0.03


def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_until(
    ready: Callable[[], bool], *, what: str, timeout_s: float = 30, poll_s: float = _POLL_S
) -> None:
    """Ask until `ready` says yes; an AssertionError names `what` when it never does."""
    end = monotonic() + timeout_s
    nobody, never = socket.socketpair()
    with nobody, never:
        nobody.settimeout(poll_s)
        while not ready():
            assert monotonic() < end, f"{what}: not within {timeout_s} s"
            try:
                nobody.recv(1)
            except TimeoutError:
                continue


def in_time(call: Callable[[], Result], *, timeout_s: float = 60) -> Result:
    """The result of `call`, or its error; an AssertionError if it has not ended after `timeout_s`.

    The limit is many times what the call should take: it tells an end from none, never fast from slow.
    """
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    assert wait([done], timeout=timeout_s).done, f"not ended after {timeout_s} s"
    return done.result()


def listens(port: int) -> bool:
    """Whether a connection to this port of loopback is taken."""
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    stop_s: float = 10,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ready; at the end of the block it is asked to end, then killed, by its id."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
    try:

        def is_ready() -> bool:
            assert process.poll() is None, f"{command[0]} ended: {log.read_text(errors='replace')[-2000:]}"
            return ready()

        wait_until(is_ready, what=f"{command[0]} ready", timeout_s=_START_S)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=stop_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class OrthancPeer:
    """A running Orthanc."""

    http_port: int
    dicom_port: int
    aet: str
    pid: int
    has_dicom_web: bool

    @property
    def url(self) -> str:
        """Root of the REST interface."""
        return f"http://127.0.0.1:{self.http_port}"

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """One REST call; an HTTP error is an error here."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        with closing(connection):
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
        assert response.status < 300, f"{method} {path}: {response.status} {content[:500]!r}"
        return content

    def get_json(self, path: str) -> Any:
        return json.loads(self.request("GET", path))

    def find(self, level: str, **query: str) -> list[dict[str, Any]]:
        """Resources of a level ("Study", "Series", "Instance") that match DICOM keywords, expanded."""
        body = {"Level": level, "Query": query, "Expand": True}
        found: list[dict[str, Any]] = json.loads(
            self.request("POST", "/tools/find", json.dumps(body).encode())
        )
        return found

    def find_instances(self, **query: str) -> list[str]:
        """SOP Instance UIDs of what matches (DICOM keywords of the instance level and above)."""
        return sorted(i["MainDicomTags"]["SOPInstanceUID"] for i in self.find("Instance", **query))

    def find_studies(self, **query: str) -> list[str]:
        """Study Instance UIDs of what matches."""
        return sorted(s["MainDicomTags"]["StudyInstanceUID"] for s in self.find("Study", **query))

    def instance_count(self) -> int:
        count: int = self.get_json("/statistics")["CountInstances"]
        return count

    def download(self, sop_instance_uid: str) -> bytes:
        """The stored file of one instance."""
        (found,) = self.find("Instance", SOPInstanceUID=sop_instance_uid)
        return self.request("GET", f"/instances/{found['ID']}/file")

    def upload(self, *files: Path) -> None:
        """Store files by REST."""
        for path in files:
            self.request("POST", "/instances", path.read_bytes())

    def add_modality(self, name: str, aet: str, port: int) -> None:
        """Make a peer on loopback known under `name`."""
        body = {"AET": aet, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
        self.request("PUT", f"/modalities/{name}", json.dumps(body).encode())

    def delete_all(self) -> None:
        for patient in self.get_json("/patients"):
            self.request("DELETE", f"/patients/{patient}")

    def answers(self) -> bool:
        """Whether both of its doors are open."""
        try:
            self.request("GET", "/system")
        except ConnectionError:
            return False
        return listens(self.dicom_port)


@contextmanager
def orthanc(
    tmp: Path,
    *,
    aet: str = "ORTHANC",
    modalities: Mapping[str, tuple[str, int]] | None = None,
    env: Mapping[str, str] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Iterator[OrthancPeer]:
    """An empty Orthanc with its storage in `tmp`, on loopback, without authentication.

    Args:
        tmp: an existing folder of its own.
        aet: its AE title; it answers to any called AE title.
        modalities: name → (AE title, port on loopback) of the peers that it knows.
        env: further environment variables. Without TCP_NODELAY=1 each of its answers waits for an
            acknowledgement, as it does where nobody has set it.
        settings: further settings of its own.
    """
    program, plugin = peer("orthanc"), Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    config = {
        "Name": aet,
        "StorageDirectory": str(tmp / "storage"),
        "IndexDirectory": str(tmp / "storage"),
        "HttpPort": free_port(),
        "DicomPort": free_port(),
        "DicomAet": aet,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {
            name: {"AET": other, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
            for name, (other, port) in (modalities or {}).items()
        },
        "SaveJobs": False,
        "Plugins": [str(plugin)] if plugin.exists() else [],
        "DicomWeb": {"Enable": True},
        "DefaultEncoding": "Utf8",  # QIDO-RS leaves out letters that it lacks
        **(settings or {}),
    }
    path = tmp / "orthanc.json"
    path.write_text(json.dumps(config))
    found = OrthancPeer(int(config["HttpPort"]), int(config["DicomPort"]), aet, 0, plugin.exists())  # type: ignore[call-overload]
    with running([program, str(path)], tmp / "orthanc.log", ready=found.answers, env=env) as process:
        found.pid = process.pid
        yield found


@dataclass
class StoreScpPeer:
    """A running DCMTK storescp."""

    port: int
    aet: str
    folder: Path
    pid: int = 0
    files: Callable[[], list[Path]] = field(init=False)

    def __post_init__(self) -> None:
        self.files = lambda: sorted(self.folder.iterdir())


@contextmanager
def storescp(
    tmp: Path, *, aet: str = "STORESCP", options: Sequence[str] = (), port: int | None = None
) -> Iterator[StoreScpPeer]:
    """A storescp that writes data sets as received into `tmp`/received; by default on a free port."""
    found = StoreScpPeer(port or free_port(), aet, tmp / "received")
    found.folder.mkdir()
    command = [
        peer("storescp"), "--aetitle", aet, "--bit-preserving", "--output-directory", str(found.folder),
        *options, str(found.port),
    ]  # fmt: skip
    with running(
        command, tmp / "storescp.log", ready=lambda: listens(found.port), env={"TCP_NODELAY": "1"}
    ) as process:
        found.pid = process.pid
        yield found


def storescu(
    files: Sequence[Path],
    port: int,
    *,
    called: str = "MSNODE",
    calling: str = "STORESCU",
    options: Sequence[str] = (),
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Send files or folders over one association; the return code is storescu's.

    Without `options` it proposes uncompressed images of the usual classes; "--required" makes it
    propose what the files are, "--propose-lossless" and its like other transfer syntaxes.
    """
    command = [
        peer("storescu"), "--call", called, "--aetitle", calling, "--scan-directories", "--recurse",
        *options, "127.0.0.1", str(port), *map(str, files),
    ]  # fmt: skip
    return subprocess.run(
        command,
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@contextmanager
def answering_scp(
    contexts: Sequence[tuple[str, str]],
    *,
    aet: str = "ANSWERS",
    store: Callable[[evt.Event], int] = lambda _event: 0x0000,
    **handlers: Callable[[evt.Event], Any],
) -> Iterator[int]:
    """An SCP in this process that answers as the test says; gives its port.

    Args:
        contexts: (SOP class, transfer syntax) pairs that it accepts.
        aet: the only called AE title that it accepts.
        store: its answer to a C-STORE.
        handlers: further pynetdicom events by name, such as `EVT_C_ECHO`.
    """
    entity = AE(ae_title=aet)
    entity.require_called_aet = True
    for sop_class, transfer_syntax in contexts:
        entity.add_supported_context(sop_class, transfer_syntax)
    connections: list[socket.socket] = []

    def remember(event: evt.Event) -> None:
        connections.append(event.assoc.dul.socket.socket)

    bound = [(evt.EVT_C_STORE, store), *((getattr(evt, name), handler) for name, handler in handlers.items())]
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_CONN_OPEN, remember), *bound]
    )
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        for connection in connections:  # pynetdicom leaves one open where the peer hung up first
            connection.close()
