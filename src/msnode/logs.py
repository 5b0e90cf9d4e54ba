"""Structured logs that cannot contain patient data.

Every log entry, from msnode or from a library, passes one processor with an allow-list. It drops keys that
are not listed and replaces values that do not have the form of their key. There is no key for names, birth
dates or free text; explanations belong in the record.

    log = structlog.get_logger()
    log.info("instance_stored", sop_instance_uid=uid, size_bytes=524288)
    log.warning("peer_unreachable", destination="pacs", error=error)

An event is a literal in snake_case; what varies is a field. An exception is logged with its class and its
traceback without source text or values. Its message is added only for msnode's own errors, which contain
nothing but UIDs and numbers.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from msnode.errors import MsnodeError

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

WITHHELD = "[withheld]"

_EVENT = re.compile(r"[a-z][a-z0-9_]{0,79}\Z")
_UID = re.compile(r"[0-9.]{1,64}\Z")
_WORD = re.compile(r"[A-Za-z0-9_.:@+/-]{1,200}\Z")


def _is_number(value: Any) -> bool:
    return value is None or (
        isinstance(value, int | float) and not type(value).__module__.startswith("pydicom")
    )


def _is_uid(value: Any) -> bool:
    return isinstance(value, str) and bool(_UID.match(value))


def _is_word(value: Any) -> bool:
    if type(value).__module__.startswith("pydicom"):
        return False
    return _is_number(value) or (isinstance(value, str) and bool(_WORD.match(value)))


_SHAPE_BY_SUFFIX: Mapping[str, Callable[[Any], bool]] = {
    "_uid": _is_uid,
    "_uids": _is_uid,
    "_s": _is_number,
    "_ms": _is_number,
    "_mm": _is_number,
    "_mm3": _is_number,
    "_bytes": _is_number,
    "_count": _is_number,
}
"""The form of values by the suffix of their key: a UID, or a number with that unit."""

_WORDS = frozenset({
    "address", "ae_title", "allowed", "association", "association_id", "attempt", "attempts", "bundle",
    "called_ae", "calling_ae", "count", "database", "destination", "device", "digest", "executor_id",
    "exit_code", "host", "job_id", "kind", "level", "line", "logger", "modality", "open", "outcome",
    "pid", "port", "precision", "recipe", "released", "revision", "role", "runtime", "setting", "sha256",
    "signal", "stage", "state", "state_before", "status", "timestamp", "traceback", "version",
    "withheld", "workflow_id",
})  # fmt: skip
"""Keys whose value is one word or number made by a program, without spaces."""


def is_allowed_key(key: str) -> bool:
    """Whether log calls may use this key."""
    return key in _WORDS or key == "error" or key.endswith(tuple(_SHAPE_BY_SUFFIX))


def _shape_of(key: str) -> Callable[[Any], bool]:
    if key in _WORDS:
        return _is_word
    return next(shape for suffix, shape in _SHAPE_BY_SUFFIX.items() if key.endswith(suffix))


def _shown(shape: Callable[[Any], bool], value: Any) -> Any:
    """`value`, with `WITHHELD` in place of every part that does not have the expected form."""
    if isinstance(value, list | tuple | set | frozenset):
        return [v if shape(v) else WITHHELD for v in value]
    if isinstance(value, Mapping):
        return {(k if _is_word(k) else WITHHELD): (v if shape(v) else WITHHELD) for k, v in value.items()}
    return value if shape(value) else WITHHELD


def describe_error(error: BaseException) -> str:
    """The class of an error, and its message if it is one of msnode's own, which contain no patient data."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, MsnodeError) else name


def places(error: BaseException) -> list[str]:
    """The traceback of an error as file:line:function, innermost last, without source text or values."""
    return [
        f"{frame.filename}:{frame.lineno}:{re.sub(r'[^A-Za-z0-9_.]', '', frame.name)}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]


def reduce_errors(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Processor that replaces `exc_info` and `error` by class, safe message and traceback."""
    info = event_dict.pop("exc_info", None)
    if info is True:
        info = sys.exception()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event_dict["traceback"] = places(error)
        event_dict.setdefault("error", error)
    given = event_dict.get("error")
    if isinstance(given, BaseException):
        event_dict["error"] = describe_error(given)
    elif given is not None:
        event_dict["error"] = WITHHELD
    return event_dict


def withhold(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Processor that passes only listed keys with values of the right form; the last before the renderer.

    The field `withheld` counts the dropped keys.
    """
    event = event_dict.get("event")
    kept: dict[str, Any] = {"event": event if isinstance(event, str) and _EVENT.match(event) else WITHHELD}
    dropped = 0
    for key, value in event_dict.items():
        if key == "event":
            continue
        if key == "error":  # text made by `reduce_errors`
            kept[key] = value
        elif is_allowed_key(key):
            kept[key] = _shown(_shape_of(key), value)
        else:
            dropped += 1
    if dropped:
        kept["withheld"] = dropped
    return kept


class _Forward(logging.Handler):
    """Forwards log records of libraries to structlog without their text.

    pydicom and pynetdicom quote element values in messages, and DBOS quotes exceptions. The logger and line
    identify the message in the library's source without disclosing anything.
    """

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        facts = {"logger": record.name, "line": record.lineno}
        structlog.get_logger().log(record.levelno, "library_message", exc_info=error, **facts)


def _log_uncaught(kind: type[BaseException], error: BaseException | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger().critical("uncaught_exception", exc_info=error)


def configure(*, json: bool, level: str) -> None:
    """Send all logs of this process to standard error through the allow-list.

    Call this first in every process: until then, structlog and Python print what they are given.

    Args:
        json: write one JSON object per line; else lines for people.
        level: lowest level of msnode's own messages ("debug", "info", "warning", "error"). Libraries are
            logged from "warning" upwards.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            reduce_errors,
            withhold,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # looked up for each line: it may change
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forward(level=logging.WARNING)]
    root.setLevel(logging.WARNING)
    for name in list(logging.root.manager.loggerDict):  # a library's own handler would bypass the allow-list
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    dbos = logging.getLogger("dbos")  # adds a console handler at launch unless there is one
    dbos.handlers[:] = root.handlers
    dbos.propagate = False
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, _traceback: _log_uncaught(kind, error)
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value)
