import ast
import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import structlog
from pydicom import Dataset
from pydicom.valuerep import PersonName

import msnode
from msnode import logs
from msnode.errors import PeerUnreachable
from support.environment import ROOT

NAME = "DOE^JANE"
PARTS = ("doe", "jane", "19700203")


@pytest.fixture
def output(capsys, monkeypatch):
    """Configured logs; calling the fixture's value returns what was written, one dict a line."""
    root, dbos = logging.getLogger(), logging.getLogger("dbos")
    before = root.handlers[:], root.level, dbos.handlers[:], dbos.propagate
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    logs.configure(json=True, level="debug")
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    logging.captureWarnings(False)
    structlog.reset_defaults()
    root.handlers[:], _, dbos.handlers[:], dbos.propagate = before
    root.setLevel(before[1])


def _patient():
    dataset = Dataset()
    dataset.PatientName = NAME
    dataset.PatientBirthDate = "19700203"
    return dataset


def _assert_clean(lines):
    assert lines
    text = json.dumps(lines).lower()
    assert not [part for part in PARTS if part in text]


def test_listed_keys_of_the_right_shape_pass(output):
    structlog.get_logger().info(
        "instance_stored",
        sop_instance_uid="1.2.3",
        size_bytes=7,
        calling_ae="MR1",
        job_id=4,
        timings_s={"segment": 1.5},
    )
    (line,) = output()
    assert line.pop("timestamp")
    assert line == {
        "event": "instance_stored",
        "level": "info",
        "sop_instance_uid": "1.2.3",
        "size_bytes": 7,
        "calling_ae": "MR1",
        "job_id": 4,
        "timings_s": {"segment": 1.5},
    }


@pytest.mark.parametrize(
    "facts",
    [
        {"patient_name": NAME},
        {"PatientName": PersonName(NAME)},
        {"kind": NAME},
        {"kind": PersonName(NAME)},
        {"kind": PersonName("Jane")},
        {"sop_instance_uid": NAME},
        {"count": "Jane Doe"},
        {"elapsed_s": "Jane"},
        {"elapsed_s": _patient()},
        {"state": _patient()},
        {"status": _patient()["PatientName"]},
        {"state": [NAME, "Jane Doe"]},
        {"timings_s": {NAME: 1, "segment": "19700203"}},
        {"digest": NAME.encode()},
        {"error": NAME},
        {"error": ValueError(NAME)},
        {NAME: 1},
        {"job_id": {"name": {"jane": 1}}},
    ],
)
def test_a_patient_never_reaches_the_output(output, facts):
    structlog.get_logger().warning("something_happened", **facts)
    _assert_clean(output())


def test_a_name_in_the_event_is_withheld(output):
    structlog.get_logger().info(f"received {NAME}")
    structlog.get_logger().info("received %s", NAME)
    lines = output()
    _assert_clean(lines)
    assert [line["event"] for line in lines] == [logs.WITHHELD] * 2


@pytest.mark.parametrize("event", ["job started", "job-started", "Job", "_job", "1_job", "", "a" * 81])
def test_an_event_that_is_not_snake_case_is_withheld(output, event):
    structlog.get_logger().info(event)
    assert output()[0]["event"] == logs.WITHHELD


def test_context_variables_pass_the_list_too(output):
    with structlog.contextvars.bound_contextvars(patient=NAME, job_id=3):
        structlog.get_logger().info("job_started")
    (line,) = output()
    _assert_clean([line])
    assert (line["job_id"], line["withheld"]) == (3, 1)


def test_tracebacks_say_where_and_not_with_what(output):
    def fail(patient_name):
        raise ValueError(f"no such patient: {patient_name}")

    try:
        fail(NAME)
    except ValueError as error:
        structlog.get_logger().exception("job_failed")
        structlog.get_logger().error("job_failed", error=error)
    lines = output()
    _assert_clean(lines)
    assert lines[0]["error"] == lines[1]["error"] == "ValueError"
    assert "test_logs.py" in lines[0]["traceback"][-1]
    assert lines[0]["traceback"][-1].endswith(":fail")


def test_messages_of_our_own_errors_are_shown(output):
    structlog.get_logger().warning(
        "peer_unreachable", error=PeerUnreachable("no connection to 127.0.0.1:104")
    )
    assert output()[0]["error"] == "PeerUnreachable: no connection to 127.0.0.1:104"


@pytest.mark.parametrize(
    "name", ["pydicom", "pynetdicom.association", "dbos", "alembic.runtime.migration", "other"]
)
def test_libraries_are_heard_without_their_text(output, name, monkeypatch):
    logger = logging.getLogger(name)
    monkeypatch.setattr(logger, "level", logging.NOTSET)  # the engine quietens its library
    logger.manager._clear_cache()
    logger.warning("bad value %s", NAME)
    logger.info("all is well")
    try:
        {}[NAME]
    except KeyError:
        logger.exception("could not read %s", _patient())
    lines = output()
    _assert_clean(lines)
    assert [(line["event"], line["logger"], line["level"]) for line in lines] == [
        ("library_message", name, "warning"),
        ("library_message", name, "error"),
    ]
    assert lines[1]["error"] == "KeyError"


_LIBRARIES = """\
import logging
from msnode import logs
logs.configure(json=True, level="debug")
import alembic.config, dbos, highdicom, openvino, PIL.Image, psycopg, pydicom, pynetdicom, scipy, SimpleITK
import sqlalchemy, urllib3
from dbos._logger import init_logger
init_logger()
for name in list(logging.root.manager.loggerDict):
    logging.getLogger(name).error("DOE^JANE")
"""


def test_libraries_imported_later_write_only_through_the_allow_list():
    done = subprocess.run([sys.executable, "-c", _LIBRARIES], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    _assert_clean(lines)
    assert done.stdout == ""
    assert {line["event"] for line in lines} == {"library_message"}
    assert {"alembic", "dbos", "highdicom", "pydicom", "pynetdicom"} <= {line["logger"] for line in lines}


def test_dbos_finds_its_console_handler_in_place(output):
    from dbos._logger import init_logger  # noqa: PLC0415 - importing DBOS takes a second: only here

    init_logger()
    logging.getLogger("dbos").error(NAME)
    lines = output()
    _assert_clean(lines)
    assert len(lines) == 1


def test_warnings_of_pydicom_lose_their_text(output):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)  # catch_warnings has put Python's own display back
        warnings.warn(f"Invalid value for VR PN: {NAME}", stacklevel=1)
        logging.captureWarnings(False)
    lines = output()
    _assert_clean(lines)
    assert lines[0]["logger"] == "py.warnings"


def test_uncaught_exceptions_are_logged_without_their_text(output):
    def die():
        raise ValueError(NAME)

    thread = threading.Thread(target=die)
    thread.start()
    thread.join()
    error = ValueError(NAME)
    sys.excepthook(ValueError, error, None)
    lines = output()
    _assert_clean(lines)
    assert [line["event"] for line in lines] == ["uncaught_exception"] * 2


def test_lines_for_a_person_hold_no_patient_either(capsys, output):
    logs.configure(json=False, level="info")
    structlog.get_logger().info("job_started", job_id=3, patient=NAME)
    structlog.get_logger().debug("not_shown")
    text = capsys.readouterr().err
    assert "job_started" in text
    assert "job_id=3" in text
    assert "doe" not in text.lower()
    assert "not_shown" not in text


_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def _is_logger(node):
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "structlog.get_logger"
    return isinstance(node, ast.Name) and node.id.lower().lstrip("_") in {"log", "logger"}


def _is_log_call(node):
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _METHODS
        and _is_logger(node.func.value)
    )


def _modules():
    for path in sorted(Path(msnode.__file__).parent.rglob("*.py")):
        yield path.name, ast.parse(path.read_text())


def _log_calls():
    for name, tree in _modules():
        for node in ast.walk(tree):
            if _is_log_call(node):
                yield f"{name}:{node.lineno}", node


def _literals(argument, function, tree):
    """The texts that an argument can be: a literal, or what callers in the module give as that parameter."""
    if isinstance(argument, ast.Constant):
        return [argument.value]
    if function is None or not isinstance(argument, ast.Name):
        return []
    parameters = [parameter.arg for parameter in function.args.args if parameter.arg != "self"]
    if argument.id not in parameters:
        return []
    place = parameters.index(argument.id)
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", None)) == function.name
    ]
    given = [call.args[place] if place < len(call.args) else None for call in calls]
    return [text.value if isinstance(text, ast.Constant) else None for text in given]


def _events():
    """Every log call in the source, and the events it can log; None for one that is not a literal."""
    for name, tree in _modules():
        inside = {}
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                inside |= dict.fromkeys(ast.walk(function), function)
        for node in ast.walk(tree):
            if _is_log_call(node):
                argument = node.args[1 if node.func.attr == "log" else 0]
                for event in _literals(argument, inside.get(node), tree) or [None]:
                    yield f"{name}:{node.lineno}", event


def test_events_are_snake_case_literals():
    found = set(_events())
    assert len(found) > 50
    assert [(where, event) for where, event in found if not logs._EVENT.match(event or "")] == []


def test_every_event_is_in_the_operations_guide():
    guide = (ROOT / "deploy" / "docs" / "operations.md").read_text()
    section = re.search(r"^#+ Log events$(.*?)(?=^#+ |\Z)", guide, re.MULTILINE | re.DOTALL)
    assert section, "the operations guide has no section 'Log events'"
    rows = [line for line in section[1].splitlines() if line.startswith("| `")]
    listed = [event for row in rows for event in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert sorted(set(listed)) == sorted(listed), "an event is listed twice"
    assert set(listed) == {event for _, event in _events()}


def test_log_calls_in_the_source_lose_nothing():
    """What the processor would withhold at run time is already wrong in the source."""
    for where, call in _log_calls():
        for keyword in call.keywords:
            if keyword.arg == "error":
                assert isinstance(keyword.value, ast.Name), f"{where}: pass the exception itself"
            elif keyword.arg not in {None, "exc_info"}:
                assert logs.is_allowed_key(keyword.arg), f"{where}: {keyword.arg} is not listed"
