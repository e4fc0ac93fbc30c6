"""What a file of events that wait for a database holds: what was written comes back, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.outbox.log.spill_format import (
    FRAME_SIZE,
    UNREADABLE,
    framed,
    header,
    is_whole,
    read_frame,
    read_header,
    read_record,
)
from relay.outbox.log.streams import Held
from relay.outbox.records import Record, record
from tests.support.builders import run

HELD = Held(7, "str_1", 3, 12)
(RECORD,) = map(record, run(1, 4, 4))


def decoded(frame: bytes, last: int | None = None) -> Record | None:
    """The record of a frame at the end of a file; None for one that was cut off."""
    length, checksum = read_frame(frame[:FRAME_SIZE])
    payload = frame[FRAME_SIZE : FRAME_SIZE + length]
    return read_record(payload, last) if is_whole(payload, length, checksum) else None


def test_a_header_names_its_stream_and_its_writer_again() -> None:
    line = header(HELD, "log_1")
    assert line.count(b"\n") == 1
    assert read_header(line, "log_1") == Held(7, "str_1", 3, 0), "how far the log goes is for the log to say"


def test_a_header_of_another_log_or_version_is_none() -> None:
    line = header(HELD, "log_1")
    assert read_header(line, "log_2") is None
    assert read_header(json.dumps(json.loads(line) | {"format": 2}).encode(), "log_1") is None


@given(sequence=st.integers(1, 1 << 60), body=st.binary(max_size=200), closes=st.booleans())
def test_a_record_comes_back_as_it_was(sequence: int, body: bytes, closes: bool) -> None:
    one = Record(
        *(sequence, RECORD.id, RECORD.type, RECORD.delivery, None, None, 5, None),
        json.dumps(body.hex()).encode(),
        closes,
    )
    assert decoded(framed(one), sequence - 1) == one


@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_never_taken_for_a_record(at: float, flip: int) -> None:
    frame = bytearray(framed(RECORD))
    frame[int(at * len(frame))] ^= flip
    try:
        found = decoded(bytes(frame))
    except UNREADABLE:
        found = None
    assert found is None


@given(cut=st.integers(1, 50))
def test_the_last_record_that_was_cut_off_is_no_damage(cut: int) -> None:
    assert decoded(framed(RECORD)[:-cut]) is None


def test_a_record_that_does_not_follow_the_last_one_is_damage() -> None:
    assert decoded(framed(RECORD), last=3) == RECORD
    with pytest.raises(ValueError, match="another place"):
        decoded(framed(RECORD), last=1)


@pytest.mark.parametrize("length", [0, 1 << 31])
def test_a_length_that_no_record_has_is_damage_and_no_end_of_the_file(length: int) -> None:
    with pytest.raises(ValueError, match="no length"):
        read_frame(length.to_bytes(4, "big") + framed(RECORD)[4:FRAME_SIZE])


def test_a_number_that_the_database_would_refuse_is_damage() -> None:
    length, _ = read_frame(framed(RECORD)[:FRAME_SIZE])
    payload = framed(RECORD)[FRAME_SIZE : FRAME_SIZE + length]
    largest = payload.replace(b"[0, 4,", b"[0, %d," % ((1 << 63) - 1))
    assert read_record(largest, None).sequence == (1 << 63) - 1
    with pytest.raises(ValueError, match="no number"):
        read_record(payload.replace(b"[0, 4,", b"[0, %d," % (1 << 63)), None)
