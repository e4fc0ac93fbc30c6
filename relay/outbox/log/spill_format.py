"""The bytes of a file of events that wait for a database: a line that says whose they are, then framed records. Pure.

A frame is a record with its length and checksum, by which the first damage is found.
"""

import json
import struct
import zlib
from typing import Any

from relay.outbox.log.streams import Held
from relay.outbox.records import Record
from relay.outbox.sqlite.rows import SEPARATOR, columns, keyed_records

_FORMAT = 1
"""A file that another version wrote is left to it."""
_FRAME = struct.Struct(">II")
"""Length and CRC-32 of a record."""
FRAME_SIZE = _FRAME.size
LONGEST_HEADER = 4096
_LONGEST_RECORD = 4 << 20
"""Bytes. An event has a quarter of a megabyte at most."""
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What decoding may raise for other bytes than those that were written."""


def header(held: Held, log: str) -> bytes:
    """The first line of a stream's file; ``log`` is the log's identity."""
    whose = {"format": _FORMAT, "log": log, "sid": held.stream, "id": held.id, "fence": held.fence}
    return json.dumps(whose).encode() + b"\n"


def read_header(line: bytes, log: str) -> Held | None:
    """The stream of a file with this first line; None for another log's, or another version's.

    Raises one of ``UNREADABLE``.
    """
    found: dict[str, Any] = json.loads(line)
    if found["format"] != _FORMAT or found["log"] != log:
        return None
    return Held(_number(found["sid"]), _text(found["id"]), _number(found["fence"]), 0)


def framed(record: Record) -> bytes:
    payload = json.dumps(columns(0, record)).encode() + SEPARATOR + record.body
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def read_frame(head: bytes) -> tuple[int, int]:
    """Length and checksum of the payload behind these ``FRAME_SIZE`` bytes. Raises ValueError for damage."""
    length, checksum = _FRAME.unpack(head)
    if not 0 < length <= _LONGEST_RECORD:
        raise ValueError("no length of a record")
    return length, checksum


def is_whole(payload: bytes, length: int, checksum: int) -> bool:
    """Whether it is as it was written; False for one that was cut off at the end. Raises ValueError for damage."""
    if len(payload) < length and payload.count(SEPARATOR) <= 1:  # else there are others behind it
        return False
    if zlib.crc32(payload) != checksum:
        raise ValueError("another checksum")
    return True


def read_record(payload: bytes, last: int | None) -> Record:
    """Raises one of ``UNREADABLE``, also for what does not follow ``last``, or the database would refuse."""
    row, _, body = payload.partition(SEPARATOR)
    ((_, record),) = keyed_records([json.loads(row)], [body])
    for number in (record.sequence, record.emitted_at, record.revision or 0, record.expires_at or 0):
        _number(number)
    for text in (record.id, record.type, record.utterance or "", record.body.decode()):
        _text(text)
    if last is not None and record.sequence != last + 1:
        raise ValueError("a record of another place")
    return record


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("no number of the log's")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("no text of the log's")
    value.encode()
    return value
