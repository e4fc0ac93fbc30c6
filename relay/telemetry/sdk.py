"""Filters and rewords the LiveKit SDK's log records for the operator.

The SDK's core is written in Rust: its records have the form ``target:line:module - text``, at error level even for
problems that it then fixes by itself.
"""

import copy
import logging
import re

_RUST = re.compile(r"(?:[A-Za-z]\w*(?:::\w+)*):\d+:(?:[\w:]*) - (.*)", re.DOTALL)

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

_ENDED_AT_START = "process killed before initialization completed"
"""The SDK raises this for such a process, and logs it with its traceback."""

_BLOCKED = re.compile(r"event loop blocked for (\d+)ms")

SELDOM_S = 60.0
_DIGITS = re.compile(r"\d+")


class SdkRecords:
    """Selects and rewords the records. Repeated ones that differ only in numbers are logged once a minute."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}

    def __call__(self, record: logging.LogRecord) -> logging.LogRecord | None:
        """The record to log: a new one if it is reworded, ``None`` if it is dropped."""
        if record.name == "root" and _IGNORED_STREAM.match(record.getMessage()):
            return None
        if record.name not in ("livekit", "livekit.agents"):
            return record
        said = record.getMessage()
        rust = _RUST.fullmatch(said) if record.name == "livekit" else None
        text = rust[1] if rust else said
        if any(pattern.match(text) for pattern in _LEFT_OUT) or _ENDED_AT_START in _exception(record):
            return None
        blocked = _BLOCKED.match(text)
        if not rust and not blocked:
            return record
        if self._repeated(record, text):
            return None
        reworded = copy.copy(record)
        reworded.args = None
        if blocked:
            reworded.msg = f"a room's process stood still for {blocked[1]} ms: audio is heard late meanwhile"
        else:
            reworded.msg = f"LiveKit's SDK: {text}"
        if record.levelno > logging.WARNING:
            reworded.levelno, reworded.levelname = logging.WARNING, "WARNING"
        return reworded

    def _repeated(self, record: logging.LogRecord, text: str) -> bool:
        said = record.name, "blocked" if _BLOCKED.match(text) else _DIGITS.sub("", text)
        if record.created - self._last.get(said, -SELDOM_S) < SELDOM_S:
            return True
        self._last = {each: at for each, at in self._last.items() if record.created - at < SELDOM_S}
        self._last[said] = record.created
        return False


def _exception(record: logging.LogRecord) -> str:
    return str(record.exc_info[1]) if isinstance(record.exc_info, tuple) else ""
