"""Log lines: one short line for people on a terminal, one JSON object per line elsewhere.

Everything passed as ``extra`` is part of the line, so one wide record describes a whole attempt. A line contains no
terminal control characters: other parties choose the names of rooms and participants.
"""

import copy
import json
import logging
import re
import sys
import warnings
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from relay.telemetry.printable import ascii_json, here, printable

LogFormat = Literal["auto", "human", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# Their INFO records interest only their own authors.
_QUIET = ("livekit", "livekit.agents", "aiohttp.access", "asyncio", "alembic", "sqlalchemy")

# LiveKit attaches what people said and their identities to its records; ours never carry either.
_PRIVATE = ("lk.pii.", "identity", "participant", "user_input", "user_transcript", "transcript")

# A plugin logs every attempt to connect, and OpenTelemetry's exporter every batch that its collector does not take.
_OFTEN = ("livekit.plugins", "opentelemetry.")

_SELDOM_S = 60.0


def setup_logging(log_format: LogFormat = "auto", level: LogLevel = "info", stream: TextIO | None = None) -> None:
    """Send every logger's records to one stream (standard output by default), replacing an earlier call's set-up.

    ``auto`` is human on a terminal, else JSON. A LiveKit job process needs no call: it passes its records, extras
    included, to the process that started it.
    """
    stream = stream or sys.stdout
    human = log_format == "human" or (log_format == "auto" and stream.isatty())
    handler = _RelayHandler(stream)
    handler.setFormatter(_Human() if human else _Json())
    handler.addFilter(_Seldom())
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if isinstance(h, _RelayHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    # a LiveKit secret that is shorter than the standard asks for: `check` says so, in words for the operator
    warnings.filterwarnings("ignore", r"The HMAC key is \d+ bytes long")
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class _RelayHandler(logging.StreamHandler[TextIO]):
    """Our handler class, so that a second set-up replaces our handler and no other."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._sdk = SdkRecords()

    def handle(self, record: logging.LogRecord) -> bool:
        chosen = self._sdk(record)
        return chosen is not None and super().handle(chosen)


class _Seldom(logging.Filter):
    """Each line of the code of such a library is logged at most once a minute. The relay itself reports once that a
    provider is down."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_OFTEN):
            return True
        place = record.name, record.lineno
        if record.created - self._last.get(place, -_SELDOM_S) < _SELDOM_S:
            return False
        self._last[place] = record.created
        return True


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if trace := _traceback(self, record):
            line["exception"] = trace
        return ascii_json(line)


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        head = f"{here(_time(record)):%H:%M:%S.%f}"[:-3]
        pairs = "".join(f" {key}={_short(value)}" for key, value in _fields(record).items())
        line = printable(f"{head} {record.levelname:<7} {record.name}: {record.getMessage()}{pairs}")
        # indented: a line within an exception's message must not look like a separate record
        trace = "".join(f"\n    {printable(each)}" for each in _traceback(self, record).split("\n") if each)
        return line + trace


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The extras of a record that may be shown."""
    extras = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    if record.name.startswith("livekit"):
        return {key: value for key, value in extras.items() if not key.startswith(_PRIVATE)}
    return extras


def _short(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else json.dumps(text, ensure_ascii=False)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return outline(record.exc_text or (formatter.formatException(record.exc_info) if record.exc_info else ""))


_IN_GROUP = re.compile(r"((?:  )+\| )?(.*)")
_HEAD = re.compile(
    r"[ +]*(?:Traceback \(|Exception Group Traceback|During handling of|The above exception)|[ +]*-*\+?-+ \d+ -+$"
)
_RAISED = re.compile(r"([A-Za-z_][\w.]*)(?:: .*)?$")
_SPOKEN = ("OSError", "FileNotFoundError", "PermissionError", "TimeoutError", "RuntimeError", "relay.errors.")
"""Errors of the system and of LiveKit's SDK, and those that are written for operators: they quote nothing."""


def outline(traceback: str) -> str:
    """A traceback without its errors' messages, which may quote a transcript, a body or a row; a few are known not to.

    It is text: a job process passes its tracebacks on as such.
    """
    kept: list[str] = []
    in_message = False
    for line in traceback.splitlines():
        prefix, rest = _IN_GROUP.fullmatch(line).groups()  # type: ignore[union-attr]  # every line matches
        if _HEAD.match(rest) or rest.startswith('  File "'):
            kept.append(line)
            in_message = False
        elif not in_message and rest.startswith("    "):
            kept.append(line)
        elif not in_message and (raised := _RAISED.match(rest)):
            in_message = True
            kept.append(line if raised[1].startswith(_SPOKEN) else f"{prefix or ''}{raised[1]}")
    return "\n".join(kept)


# The LiveKit SDK's records, selected and reworded for the operator. Its core is written in Rust: its records have the
# form ``target:line:module - text``, at error level even for problems that it then fixes by itself.

_RUST = re.compile(r"([A-Za-z]\w*(?:::\w+)*:\d+):(?:[\w:]*) - (.*)", re.DOTALL)

_QUOTED = re.compile(r"""(['"]).*\1""", re.DOTALL)
"""In its records this may be what a participant chose, such as the id of a data stream."""

_LEFT_OUT = (
    # with every attempt; the relay reports the problem once
    re.compile(r"failed to connect to livekit, retrying in"),
    # at every orderly departure from a room; other records report a lost connection
    re.compile(r"publisher data channel '\w*' closed unexpectedly"),
    # a process that was still starting when the worker stopped: the SDK itself ends it, by SIGUSR1
    re.compile(r"process exited with non-zero exit code -10$"),
)

_IGNORED_STREAM = re.compile(r"ignoring (?:text|byte) stream with topic ")
"""On the root logger, for each data stream of a topic that the relay does not read: a chat, or anything else that a
participant sends, at any rate."""

_NOT_HANDLED = re.compile(r"error running user callback for (\w+): ")
"""On the root logger, followed by the whole event: an identity, a name, attributes. The SDK raises for events of what
has gone, such as a mute of a track that is unpublished: a participant can bring it about at any rate."""

_ENDED_AT_START = "process killed before initialization completed"
"""The SDK raises this for such a process, and logs it with its traceback."""

_BLOCKED = re.compile(r"event loop blocked for (\d+)ms")


class SdkRecords:
    """Selects and rewords the records. What one line of the SDK's code says is logged once a minute: a participant can
    bring it about at any rate, and choose a part of the words."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}

    def __call__(self, record: logging.LogRecord) -> logging.LogRecord | None:
        """The record to log: a new one if it is reworded, ``None`` if it is dropped."""
        if record.name == "root":
            return self._from_room(record)
        if record.name not in ("livekit", "livekit.agents"):
            return record
        said = record.getMessage()
        rust = _RUST.fullmatch(said) if record.name == "livekit" else None
        text = rust[2] if rust else said
        if any(pattern.match(text) for pattern in _LEFT_OUT) or _ENDED_AT_START in _exception(record):
            return None
        blocked = _BLOCKED.match(text)
        if not rust and not blocked:
            return record
        if self._repeated(record, rust[1] if rust else "blocked"):
            return None
        reworded = copy.copy(record)
        reworded.args = None
        if blocked:
            reworded.msg = f"a room's process stood still for {blocked[1]} ms: audio is heard late meanwhile"
        else:
            reworded.msg = "LiveKit's SDK: " + _QUOTED.sub(r"\1…\1", text)
        if record.levelno > logging.WARNING:
            reworded.levelno, reworded.levelname = logging.WARNING, "WARNING"
        return reworded

    def _from_room(self, record: logging.LogRecord) -> logging.LogRecord | None:
        said = record.getMessage()
        if _IGNORED_STREAM.match(said):
            return None
        if (event := _NOT_HANDLED.match(said)) is None:
            return record
        text = f"LiveKit's SDK: an event of a room could not be handled ({event[1]})"
        if self._repeated(record, text):
            return None
        reworded = copy.copy(record)
        reworded.msg, reworded.args = text, None
        reworded.levelno, reworded.levelname = logging.WARNING, "WARNING"
        return reworded

    def _repeated(self, record: logging.LogRecord, what: str) -> bool:
        said = record.name, what
        if record.created - self._last.get(said, -_SELDOM_S) < _SELDOM_S:
            return True
        self._last = {each: at for each, at in self._last.items() if record.created - at < _SELDOM_S}
        self._last[said] = record.created
        return False


def _exception(record: logging.LogRecord) -> str:
    return str(record.exc_info[1]) if isinstance(record.exc_info, tuple) else ""
