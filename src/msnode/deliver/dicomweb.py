"""A DICOMweb server: STOW-RS (PS3.18 10.5), and verification by QIDO-RS (PS3.18 10.6)."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog
import urllib3

from msnode import crash_points
from msnode.deliver.destination import Outcome, SendResult
from msnode.deliver.dicom import outcome_of
from msnode.dicom.association import Found, Response
from msnode.errors import PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from msnode.deliver.destination import ResultObject
    from msnode.dicom.commitment import Request, TakeReport

log = structlog.get_logger()

_JSON = "application/dicom+json"
_CONNECT_S = 5.0
_ANSWER_S = 120.0
"""As for one C-STORE: a busy archive may take this long."""

_OK, _ACCEPTED, _NO_CONTENT, _NOT_FOUND, _CONFLICT = 200, 202, 204, 404, 409
_REDIRECTS = range(300, 400)
_SERVER_ERRORS = range(500, 600)
_NOT_AUTHORISED = "not authorised (HTTP {}): have the server let this node store there"
_STATUSES: Mapping[int, tuple[Outcome, str]] = {
    400: (Outcome.REFUSED, "bad request (HTTP 400)"),
    401: (Outcome.REFUSED, _NOT_AUTHORISED.format(401)),
    403: (Outcome.REFUSED, _NOT_AUTHORISED.format(403)),
    408: (Outcome.TRY_LATER, "request timeout (HTTP 408)"),
    409: (Outcome.REFUSED, "conflict (HTTP 409), without a reason"),
    413: (Outcome.REFUSED, "object too large (HTTP 413)"),
    415: (Outcome.REFUSED, "media type not supported (HTTP 415)"),
    429: (Outcome.TRY_LATER, "too many requests (HTTP 429)"),
}

_SOP_INSTANCE_UID, _REFERENCED_SOP_INSTANCE_UID = "00080018", "00081155"
_WARNING_REASON, _FAILURE_REASON = "00081196", "00081197"
_FAILED_SOP_SEQUENCE, _REFERENCED_SOP_SEQUENCE = "00081198", "00081199"


@dataclass(frozen=True)
class DicomWebDestination:
    """An origin server that accepts STOW-RS.

    Attributes:
        name: its name in the configuration.
        objects: the kinds that it takes.
        url: base URL of its services, without `/studies`.
    """

    name: str
    objects: frozenset[str]
    url: str

    def takes(self, kind: str) -> bool:
        """Whether `kind` is among `objects`."""
        return kind in self.objects

    def send(self, objects: Sequence[ResultObject]) -> tuple[SendResult, ...]:
        """Send the file of each object byte for byte, in a request of its own; see `Destination.send`."""
        results = []
        lost: PeerUnreachable | None = None
        with _pool() as pool:
            for each in objects:
                result = SendResult(each.sop_instance_uid, Outcome.TRY_LATER, None, str(lost))
                if lost is None:
                    try:
                        result = self._store(pool, each)
                    except PeerUnreachable as error:
                        lost = error
                        result = replace(result, text=str(error))
                    crash_points.reach("object-sent", each.sop_instance_uid)
                results.append(result)
                log.info(
                    "object_sent", destination=self.name, sop_instance_uid=each.sop_instance_uid,
                    outcome=result.outcome.value, status=result.status,
                )  # fmt: skip
        return tuple(results)

    def _store(self, pool: urllib3.PoolManager, each: ResultObject) -> SendResult:
        try:
            content = each.path.read_bytes()
        except OSError as error:
            text = f"{each.path.name} cannot be read: {error.strerror}"
            return SendResult(each.sop_instance_uid, Outcome.TRY_LATER, None, text)
        boundary = uuid.uuid4().hex
        body = b"".join((
            f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(), content,
            f"\r\n--{boundary}--\r\n".encode(),
        ))  # fmt: skip
        headers = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}
        status, answer = _ask(pool, "POST", f"{self._root}/studies", body=body, headers=headers)
        return _result(each.sop_instance_uid, status, answer)

    @contextmanager
    def open_session(self, take_report: TakeReport) -> Iterator[WebVerificationSession]:
        """A session for QIDO-RS; see `VerifiableDestination.open_session`."""
        del take_report  # there is no storage commitment over the web
        with _pool() as pool:
            yield WebVerificationSession(pool, self._root)

    @property
    def _root(self) -> str:
        return self.url.rstrip("/")


@dataclass(frozen=True)
class WebVerificationSession:
    """Asks by QIDO-RS what the server has; there is no storage commitment. See `VerificationSession`."""

    pool: urllib3.PoolManager
    root: str
    commits: bool = False
    finds: bool = True
    asks_by: str = "QIDO-RS"
    deadline_s: float = 0

    def request(self, request: Request) -> Response:
        """Never called, because `commits` is false."""
        raise NotImplementedError(request.transaction_uid)

    def linger(self, answered: Callable[[], bool]) -> None:
        """Never called, because `commits` is false."""
        raise NotImplementedError(answered)

    def find(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uids: Collection[str]
    ) -> Found:
        """Search for instances (PS3.18 10.6); see `VerificationSession.find`.

        The first request asks for the whole series. A server may truncate a long answer. If an answer names
        some instances, each missing one is asked for by itself.
        """
        address = f"{self.root}/studies/{study_instance_uid}/series/{series_instance_uid}/instances"
        found = self._search(address)
        if found.sop_instance_uids:
            for uid in sorted(set(sop_instance_uids) - found.sop_instance_uids):
                one = self._search(f"{address}?SOPInstanceUID={uid}")
                if one.failure:
                    return one
                found = Found(found.sop_instance_uids | one.sop_instance_uids)
        return found

    def _search(self, address: str) -> Found:
        status, matches = _ask(self.pool, "GET", address)
        if status in {_NO_CONTENT, _NOT_FOUND}:
            return Found()
        if status != _OK or not isinstance(matches, list):
            return Found(failure=f"QIDO-RS answered with HTTP {status}")
        uids = (_value(match, _SOP_INSTANCE_UID) for match in matches)
        return Found(frozenset(uid for uid in uids if isinstance(uid, str)))


def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(
        retries=False, timeout=urllib3.Timeout(connect=_CONNECT_S, read=_ANSWER_S), num_pools=1
    )


def _ask(
    pool: urllib3.PoolManager,
    method: str,
    address: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any]:
    """HTTP status and decoded JSON of the answer; None for the latter if it is not JSON.

    Raises:
        PeerUnreachable: no answer came.
    """
    try:
        response = pool.request(method, address, body=body, headers={"Accept": _JSON, **(headers or {})})
    except urllib3.exceptions.HTTPError as error:
        raise PeerUnreachable(f"no answer over HTTP ({type(error).__name__})") from None
    try:
        return response.status, json.loads(response.data)
    except ValueError:
        return response.status, None


def _result(uid: str, status: int, answer: Any) -> SendResult:
    """The result of storing one object (PS3.18 10.5.3)."""
    if status in {_OK, _ACCEPTED, _CONFLICT}:
        failed = _item_of(answer, _FAILED_SOP_SEQUENCE, uid)
        if failed is not None:
            reason = _value(failed, _FAILURE_REASON)
            if isinstance(reason, int):
                outcome, text = outcome_of(reason)
                return SendResult(uid, outcome, reason, text)
            return SendResult(uid, Outcome.UNCLEAR, status, f"failed without a reason (HTTP {status})")
    if status in {_OK, _ACCEPTED}:
        return _stored(uid, status, answer)
    outcome, text = _meaning(status)
    return SendResult(uid, outcome, status, text)


def _meaning(status: int) -> tuple[Outcome, str]:
    """Outcome for the object, and description, of an HTTP status that stored nothing."""
    if status in _SERVER_ERRORS:
        return Outcome.TRY_LATER, f"server error (HTTP {status})"
    if status in _REDIRECTS:
        return Outcome.REFUSED, f"redirected (HTTP {status}): give the address that it redirects to as url"
    return _STATUSES.get(status, (Outcome.UNCLEAR, f"not stored (HTTP {status})"))


def _stored(uid: str, status: int, answer: Any) -> SendResult:
    stored = _item_of(answer, _REFERENCED_SOP_SEQUENCE, uid)
    if stored is None and isinstance(answer, dict):
        text = f"HTTP {status}, but the object is not among what was stored"
        return SendResult(uid, Outcome.UNCLEAR, status, text)
    warning = _value(stored, _WARNING_REASON)
    if isinstance(warning, int):
        return SendResult(uid, Outcome.STORED_WITH_WARNING, warning, outcome_of(warning)[1])
    return SendResult(uid, Outcome.STORED, status, "stored")


def _item_of(answer: Any, sequence: str, uid: str) -> Any:
    """The item of a sequence (DICOM JSON model, PS3.18 F.2) that names the instance."""
    element = answer.get(sequence) if isinstance(answer, dict) else None
    items = element.get("Value") if isinstance(element, dict) else None
    for item in items if isinstance(items, list) else ():
        if _value(item, _REFERENCED_SOP_INSTANCE_UID) == uid:
            return item
    return None


def _value(item: Any, tag: str) -> Any:
    """The first value of an element, or None."""
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
