import json
import threading
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from msnode.deliver import dicomweb
from msnode.deliver.destination import Outcome, ResultObject
from msnode.deliver.dicomweb import DicomWebDestination
from msnode.errors import PeerUnreachable
from support.dicom_files import flair_series
from support.peers import free_port

STOW_JSON = "application/dicom+json"


@contextmanager
def origin_server(answer):
    """Answers each request by (status, JSON or bytes or None) of `answer(method, path, headers, body)`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found = answer(self.command, self.path, self.headers, body)
            if found is None:  # hang up without a word
                self.close_connection = True
                return
            status, content = found
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _serve  # noqa: N815 - the base class looks for these names

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def to(url):
    return DicomWebDestination("cloud", frozenset({"overlay"}), url)


@pytest.fixture
def objects(tmp_path):
    return [ResultObject.from_file("overlay", path) for path in flair_series(tmp_path, slices=3)]


def _element(*values, vr="UI"):
    return {"vr": vr, "Value": list(values)}


def stored(uid, warning=None):
    item = {"00081155": _element(uid)}
    if warning is not None:
        item["00081196"] = _element(warning, vr="US")
    return {"00081199": _element(item, vr="SQ")}


def failed(uid, reason=None):
    item = {"00081155": _element(uid)}
    if reason is not None:
        item["00081197"] = _element(reason, vr="US")
    return {"00081198": _element(item, vr="SQ")}


def test_a_file_goes_byte_for_byte_in_a_request_of_its_own(objects):
    seen = []

    def answer(method, path, headers, body):
        message = BytesParser().parsebytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
        assert message.get_content_type() == "multipart/related"
        assert message.get_param("type") == "application/dicom"
        (part,) = message.get_payload()
        assert part.get_content_type() == "application/dicom"
        boundary = message.get_boundary().encode()
        content = body.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n--" + boundary + b"--\r\n")
        seen.append((method, path, headers["Accept"], content))
        return 200, stored(objects[len(seen) - 1].sop_instance_uid)

    with origin_server(answer) as url:
        results = to(f"{url}/").send(objects)
    assert [(r.outcome, r.status, r.sop_instance_uid) for r in results] == [
        (Outcome.STORED, 200, each.sop_instance_uid) for each in objects
    ]
    assert seen == [("POST", "/dicom-web/studies", STOW_JSON, o.path.read_bytes()) for o in objects]


@pytest.mark.parametrize(
    ("status", "reason", "outcome"),
    [
        (409, 0xA700, Outcome.TRY_LATER),
        (409, 0x0110, Outcome.TRY_LATER),
        (409, 0xA900, Outcome.REFUSED),
        (409, 0x0122, Outcome.REFUSED),
        (409, 0x0124, Outcome.REFUSED),
        (409, 0xC000, Outcome.UNCLEAR),
        (409, 0x0111, Outcome.ALREADY_THERE),
        (202, 0xA700, Outcome.TRY_LATER),
        (200, 0xA900, Outcome.REFUSED),
    ],
)
def test_a_failure_reason_means_what_the_status_of_a_c_store_means(objects, status, reason, outcome):
    uid = objects[0].sop_instance_uid
    with origin_server(lambda *_: (status, failed(uid, reason))) as url:
        (result,) = to(url).send(objects[:1])
    assert (result.outcome, result.status) == (outcome, reason)


@pytest.mark.parametrize(
    ("status", "outcome", "text"),
    [
        (400, Outcome.REFUSED, "bad request"),
        (401, Outcome.REFUSED, "have the server let this node store there"),
        (403, Outcome.REFUSED, "have the server let this node store there"),
        (409, Outcome.REFUSED, "without a reason"),
        (413, Outcome.REFUSED, "too large"),
        (415, Outcome.REFUSED, "media type"),
        (307, Outcome.REFUSED, "give the address that it redirects to"),
        (408, Outcome.TRY_LATER, "timeout"),
        (429, Outcome.TRY_LATER, "too many"),
        (500, Outcome.TRY_LATER, "server error"),
        (503, Outcome.TRY_LATER, "server error"),
        (404, Outcome.UNCLEAR, "not stored"),
        (418, Outcome.UNCLEAR, "not stored"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"<html>no</html>", {}, [], {"00081198": {"vr": "SQ"}}])
def test_what_a_status_without_a_reason_means(objects, status, outcome, text, content):
    with origin_server(lambda *_: (status, content)) as url:
        (result,) = to(url).send(objects[:1])
    assert (result.outcome, result.status) == (outcome, status)
    assert text in result.text
    assert str(status) in result.text


def test_a_warning_is_stored(objects):
    uid = objects[0].sop_instance_uid
    with origin_server(lambda *_: (202, stored(uid, 0xB000))) as url:
        (result,) = to(url).send(objects[:1])
    assert (result.outcome, result.status) == (Outcome.STORED_WITH_WARNING, 0xB000)


def test_success_without_the_object_among_what_was_stored_is_believed_by_nobody(objects):
    answers = iter([{}, stored("1.2.3"), failed(objects[2].sop_instance_uid)])
    with origin_server(lambda *_: (200, next(answers))) as url:
        results = to(url).send(objects)
    assert {(r.outcome, r.status) for r in results} == {(Outcome.UNCLEAR, 200)}


def test_success_in_another_format_is_success(objects):
    with origin_server(lambda *_: (200, b"<NativeDicomModel/>")) as url:
        (result,) = to(url).send(objects[:1])
    assert result.outcome is Outcome.STORED


def test_one_refused_object_does_not_hold_the_others(objects):
    answers = iter([(200, b""), (413, b""), (200, b"")])
    with origin_server(lambda *_: next(answers)) as url:
        results = to(url).send(objects)
    assert [r.outcome for r in results] == [Outcome.STORED, Outcome.REFUSED, Outcome.STORED]


def test_a_server_that_goes_away_keeps_what_it_stored(objects):
    seen = []

    def answer(*_):
        seen.append(1)
        return (200, b"") if len(seen) == 1 else None

    with origin_server(answer) as url:
        results = to(url).send(objects)
    assert [r.outcome for r in results] == [Outcome.STORED, Outcome.TRY_LATER, Outcome.TRY_LATER]
    assert "no answer over HTTP" in results[1].text
    assert len(seen) == 2


def test_a_server_that_is_down(objects):
    results = to(f"http://127.0.0.1:{free_port()}").send(objects)
    assert {(r.outcome, r.status) for r in results} == {(Outcome.TRY_LATER, None)}


def test_a_server_that_never_answers(objects, monkeypatch):
    monkeypatch.setattr(dicomweb, "_ANSWER_S", 0.3)
    release = threading.Event()

    def answer(*_):
        release.wait(10)

    with origin_server(answer) as url:
        (result,) = to(url).send(objects[:1])
        release.set()
    assert (result.outcome, result.text) == (Outcome.TRY_LATER, "no answer over HTTP (ReadTimeoutError)")


def test_a_file_that_cannot_be_read_now_is_tried_again(objects):
    objects[0].path.unlink()
    with origin_server(lambda *_: (200, b"")) as url:
        results = to(url).send(objects)
    assert [r.outcome for r in results] == [Outcome.TRY_LATER, Outcome.STORED, Outcome.STORED]


def find(url, *uids):
    with to(url).open_session(lambda _report: 0) as line:
        assert (line.commits, line.finds) == (False, True)
        return line.find("1.2.1", "1.2.2", uids)


def matches(*uids):
    return [{"00080018": _element(uid)} for uid in uids]


def test_qido_asks_for_the_series():
    seen = []
    with origin_server(
        lambda method, path, *_: seen.append((method, path)) or (200, matches("1", "2"))
    ) as url:
        found = find(url, "1", "2")
    assert (found.sop_instance_uids, found.failure) == ({"1", "2"}, "")
    assert seen == [("GET", "/dicom-web/studies/1.2.1/series/1.2.2/instances")]


def test_qido_asks_one_by_one_for_what_a_long_answer_left_out():
    def answer(_method, path, *_):
        wanted = path.partition("SOPInstanceUID=")[2]
        return 200, matches("1") if not wanted else matches(*{"2"} & {wanted})

    with origin_server(answer) as url:
        found = find(url, "1", "2", "3")
    assert (found.sop_instance_uids, found.failure) == ({"1", "2"}, "")


@pytest.mark.parametrize(("status", "content"), [(200, []), (204, b""), (404, b"no such study")])
def test_qido_finds_nothing(status, content):
    with origin_server(lambda *_: (status, content)) as url:
        assert find(url, "1") == dicomweb.Found()


@pytest.mark.parametrize(
    ("status", "content"), [(503, b""), (401, b""), (400, []), (200, b"<html/>"), (200, {})]
)
def test_qido_that_fails_is_no_answer(status, content):
    with origin_server(lambda *_: (status, content)) as url:
        assert find(url, "1").failure == f"QIDO-RS answered with HTTP {status}"


@pytest.mark.parametrize("content", [[None], [{"00080018": 7}], [{"00080018": {"Value": [None]}}], [[]]])
def test_qido_matches_that_are_no_dicom_json_name_nothing(content):
    with origin_server(lambda *_: (200, content)) as url:
        assert find(url, "1") == dicomweb.Found()


def test_qido_of_a_server_that_is_down():
    with pytest.raises(PeerUnreachable, match="no answer over HTTP"):
        find(f"http://127.0.0.1:{free_port()}", "1")
