"""Log lines: wide, one each, and without what people said."""

import inspect
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Literal

import pytest
from livekit import rtc
from livekit.rtc._proto.room_pb2 import RoomEvent, TrackMuted

from relay.telemetry.logs import outline, setup_logging

ours = logging.getLogger("relay.dispatch")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {
        name: logger.level for name, logger in logging.Logger.manager.loggerDict.items() if hasattr(logger, "level")
    }
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, earlier in levels.items():
        logging.getLogger(name).setLevel(earlier)


def test_json_lines_carry_the_extras() -> None:
    out = io.StringIO()
    setup_logging("json", stream=out)
    ours.info("delivered %s", "evt_1", extra={"endpoint": "crm", "status": 204})
    ours.error("broken", exc_info=OSError("gone"))
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "relay.dispatch",
        "message": "delivered evt_1",
        "endpoint": "crm",
        "status": 204,
    }
    assert "OSError: gone" in second["exception"]


def test_human_lines_carry_them_too() -> None:
    out = io.StringIO()
    setup_logging("human", stream=out)
    ours.warning("retry", extra={"endpoint": "crm", "why": "timed out\n", "none": None})
    assert out.getvalue().split(" ", 1)[1] == (
        'WARNING relay.dispatch: retry endpoint=crm why="timed out\\n" none=None\n'
    )


def test_auto_is_json_where_nobody_looks() -> None:
    out = io.StringIO()
    setup_logging(stream=out)
    ours.info("x")
    assert json.loads(out.getvalue())["message"] == "x"


def test_a_second_call_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    setup_logging("json", stream=first)
    setup_logging("human", "warning", stream=second)
    ours.info("not at this level")
    ours.error("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert "not at this level" not in second.getvalue()


def test_livekit_says_less_and_never_what_was_said() -> None:
    out = io.StringIO()
    setup_logging("json", "debug", stream=out)
    livekit = logging.getLogger("livekit.agents")
    livekit.info("received user transcript hush")
    livekit.warning("skipped", extra={"lk.pii.user_input": "hush", "participant": "hush", "room": "r"})
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert line["message"] == "skipped"
    assert line["room"] == "r"
    assert "hush" not in out.getvalue()


def test_a_plugin_that_reconnects_all_the_time_says_so_once_a_minute() -> None:
    out = io.StringIO()
    setup_logging("json", stream=out)

    def said(logger: str, line: int, at: float) -> None:
        record = logging.LogRecord(logger, logging.WARNING, "stt.py", line, f"closed at {at}", (), None)
        record.created = at
        logging.getLogger(logger).handle(record)

    for at in (1000.0, 1001.0, 1059.0, 1060.0):
        said("livekit.plugins.assemblyai", 757, at)
    said("livekit.plugins.assemblyai", 782, 1001.0)
    said("livekit.agents", 757, 1001.0)
    said("livekit.agents", 757, 1002.0)

    lines = [json.loads(line)["message"] for line in out.getvalue().splitlines()]
    assert lines == ["closed at 1000.0", "closed at 1060.0", "closed at 1001.0", "closed at 1001.0", "closed at 1002.0"]


def test_what_the_relay_says_once_livekit_does_not_say_with_every_attempt() -> None:
    out = io.StringIO()
    setup_logging("json", stream=out)
    agents = logging.getLogger("livekit.agents")
    agents.warning("failed to connect to livekit, retrying in 2s", extra={"retry_count": 2})
    agents.warning("the job is slow")
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert line["message"] == "the job is slow"


RUST = "livekit::rtc_engine::rtc_session:1017:livekit::rtc_engine::rtc_session - "


def test_an_orderly_end_of_a_room_leaves_no_line_of_the_sdk() -> None:
    out = io.StringIO()
    setup_logging("human", stream=out)
    for channel in ("_reliable", "_lossy", "_data_track"):
        # as the SDK logs it, and as a job process hands it on
        sdk, said = logging.getLogger("livekit"), f"publisher data channel '{channel}' closed unexpectedly"
        sdk.error("%s:%s:%s - %s", "livekit::rtc_engine::rtc_session", 1017, "livekit::rtc_engine::rtc_session", said)
        sdk.error(RUST + said)
    assert out.getvalue() == ""


@pytest.mark.parametrize("kind", ["text", "byte"])
def test_data_streams_of_participants_that_nobody_reads_leave_no_line(kind: str) -> None:
    out = io.StringIO()
    setup_logging("human", stream=out)
    said = f"ignoring {kind} stream with topic '%s', no callback attached"
    assert said in inspect.getsource(rtc.room)  # the SDK's words
    logging.info(said, "lk.chat")  # noqa: LOG015 - as the SDK logs it
    assert out.getvalue() == ""


def test_what_a_participant_chose_is_in_no_line_of_the_sdk_and_multiplies_none() -> None:
    out = io.StringIO()
    setup_logging("human", stream=out)
    sdk, place = logging.getLogger("livekit"), "livekit_data_stream::incoming::manager"
    for chosen in ("alice", "what 'she'\nsaid", *(f"{chr(97 + n)}" * 9 for n in range(26))):
        sdk.error(f"{place}:288:{place} - Stream '{chosen}' already open")
        sdk.warning(f"{place}:457:{place} - Dropping duplicate chunk 0 for stream '{chosen}'")
        sdk.warning(f'{place}:471:{place} - unknown header: Text {{ topic: "{chosen}" }}')
    lines = [line.partition("LiveKit's SDK: ")[2] for line in out.getvalue().splitlines()]
    assert lines == [
        "Stream '…' already open",
        "Dropping duplicate chunk 0 for stream '…'",
        'unknown header: Text { topic: "…" }',
    ]


@pytest.mark.parametrize("log_format", ["json", "human"])
def test_an_event_that_the_sdk_cannot_handle_is_told_of_without_its_content(
    log_format: Literal["json", "human"],
) -> None:
    out = io.StringIO()
    setup_logging(log_format, stream=out)
    said = "error running user callback for %s: %s"
    assert said in inspect.getsource(rtc.room)  # the SDK's words
    identity = "alice\nsecond line"
    event = RoomEvent(track_muted=TrackMuted(participant_identity=identity, track_sid="TR_x"))
    for _ in range(3):
        try:
            dict[str, str]()[identity]
        except KeyError:
            logging.exception(said, event.WhichOneof("message"), event)  # noqa: LOG015 - as the SDK logs it
    logged = out.getvalue()
    assert "alice" not in logged
    assert "second line" not in logged
    assert logged.count("LiveKit's SDK: an event of a room could not be handled (track_muted)") == 1
    assert "KeyError" in logged


def test_a_process_that_still_starts_when_the_worker_stops_leaves_no_line() -> None:
    out = io.StringIO()
    setup_logging("human", stream=out)
    agents = logging.getLogger("livekit.agents")
    agents.error("process exited with non-zero exit code -10")
    killed = RuntimeError("process killed before initialization completed")
    agents.error("error initializing process", exc_info=killed)
    assert out.getvalue() == ""
    agents.error("process exited with non-zero exit code -9")
    agents.error("error initializing process", exc_info=RuntimeError("no model"))
    assert "code -9" in out.getvalue()
    assert "no model" in out.getvalue()


def test_other_lines_of_the_sdk_are_told_without_its_internals_once_a_minute() -> None:
    out = io.StringIO()
    setup_logging("json", stream=out)
    sdk = logging.getLogger("livekit")
    for attempt in range(5):
        sdk.error(f"livekit::rtc_engine:512:livekit::rtc_engine - resuming connection... attempt: {attempt}")
    sdk.warning("livekit_signaling:88:livekit_signaling - dropping signal")
    logging.getLogger("livekit.agents").warning(
        'event loop blocked for 532ms at "/usr/lib/ssl.py", line 5, in x; move it'
    )
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("warning", "LiveKit's SDK: resuming connection... attempt: 0"),
        ("warning", "LiveKit's SDK: dropping signal"),
        ("warning", "a room's process stood still for 532 ms: audio is heard late meanwhile"),
    ]


def test_a_record_that_is_reworded_stays_as_it_is_for_other_handlers() -> None:
    setup_logging("json", stream=io.StringIO())
    record = logging.LogRecord("livekit", logging.ERROR, "ffi.py", 1, RUST + "x", (), None)
    logging.getLogger("livekit").handle(record)
    assert (record.getMessage(), record.levelno) == (RUST + "x", logging.ERROR)


class Quoting(Exception):
    """An error whose message quotes what it could not process."""


def quotes(text: str) -> None:
    raise Quoting(f"cannot process {text}\n  and more of {text}: {text}\nquoted: {text}")


def fails(text: str) -> None:
    try:
        quotes(text)
    except Quoting as error:
        raise ExceptionGroup(f"all of {text}", [ValueError(text), error]) from error


@pytest.mark.parametrize("log_format", ["json", "human"])
def test_a_traceback_has_types_and_places_and_no_message(log_format: Literal["json", "human"]) -> None:
    out = io.StringIO()
    setup_logging(log_format, stream=out)
    try:
        fails("what-was-said")
    except ExceptionGroup:
        ours.exception("broken")
    line = out.getvalue()
    assert "what-was-said" not in line.replace('fails("what-was-said")', "").replace('fails(\\"what-was-said\\")', "")
    for told in ("Quoting", "ExceptionGroup", "ValueError", "in fails", "test_telemetry_logs.py"):
        assert told in line


def test_the_message_of_an_error_for_operators_is_kept() -> None:
    frames = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n'
    traceback = f"{frames}relay.errors.OutboxError: full"
    assert outline(traceback) == traceback
    assert outline("") == ""


def test_a_librarys_warning_is_a_record_and_a_short_livekit_secret_none() -> None:
    program = (
        "import jwt, warnings; from relay.telemetry.logs import setup_logging; setup_logging('json'); "
        "jwt.encode({}, 'short', algorithm='HS256'); warnings.warn('old')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    (line,) = done.stdout.splitlines()
    assert (json.loads(line)["logger"], "old" in json.loads(line)["message"]) == ("py.warnings", True)
    assert done.stderr == ""
