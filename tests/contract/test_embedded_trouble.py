"""Whatever goes wrong in the relay, the agent's conversation goes on as if it were not there."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from livekit.plugins import silero

from relay import SpeechRelay
from relay.capture.health.error_guard import MAX_FAILURES, ErrorGuard
from relay.capture.livekit.stats import RoomStats
from relay.capture.stt.transcripts import Transcripts
from relay.capture.vad.events import Segments
from relay.dispatch.maintenance import Maintenance
from relay.embedded import background, follower, speech_relay
from relay.embedded.background import Background
from relay.embedded.failures import Failures
from relay.embedded.follower import Follower
from relay.embedded.media import MediaClock
from relay.embedded.recording import MOST_IN_MAILBOX, Mailbox, Recording
from relay.embedded.vad import _Pulse
from relay.errors import OutboxError
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from relay.recording.recorder import StreamRecorder
from relay.speech.tracker import Tracker
from tests.support.livekit.embedding import Conversation, Job, configured, ever_tried


class Trouble(TypeError):
    """Of the one kind that LiveKit's event emitter lets through."""


def fails(*_: Any, **__: Any) -> NoReturn:
    raise Trouble("a transcript")


async def fails_later(*_: Any, **__: Any) -> NoReturn:
    raise Trouble("a transcript")


async def refuses(*_: Any, **__: Any) -> NoReturn:
    raise OutboxError("the disk is full")


released = threading.Event()
"""Set when a test that hangs the relay's own thread is over."""


def hangs(*_: Any, **__: Any) -> None:
    released.wait(30)


async def hangs_later(*_: Any, **__: Any) -> None:
    released.wait(30)


TROUBLES: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "the tracker raises": (Tracker, "observe", fails),
    "the recorder raises": (StreamRecorder, "observe", fails),
    "the recorder hangs": (StreamRecorder, "observe", hangs),
    "the log refuses an append": (StreamLog, "append", refuses),
    "an append raises": (StreamLog, "append", fails),
    "the log cannot be opened": (Outbox, "open", refuses),
    "opening the log raises": (Outbox, "open", fails_later),
    "no stream can be opened": (Outbox, "open_stream", refuses),
    "opening a stream raises": (Outbox, "open_stream", fails_later),
    "the dispatcher dies": (Maintenance, "run", fails_later),
    "the dispatcher hangs": (Maintenance, "run", hangs_later),
    "the thread dies": (Background, "_live", fails_later),
    "the thread does not start": (Background, "start", fails),
    "a recording cannot be begun": (Follower, "_begin", fails),
    "looking raises": (Follower, "_look", fails),
    "following raises": (Follower, "__init__", fails),
    "reporting raises": (SpeechRelay, "_report", fails),
    "leaving raises": (SpeechRelay, "_leave", fails),
    "the audio clock raises": (MediaClock, "reached", fails),
    "the voice tap raises": (Segments, "happened", fails),
    "the voice tap raises on audio": (Segments, "pushed", fails),
    "the voice tap raises at the end": (Segments, "closed", fails),
    "the words' tap raises": (Transcripts, "heard", fails),
    "looking for failures raises": (Failures, "look", fails),
    "counting failures raises": (Failures, "observed", fails),
    "the room's statistics cannot be had": (RoomStats, "follow", fails),
    "the voice tap's pulse raises": (_Pulse, "missed", fails),
    "handing over raises": (Recording, "report", fails),
}
"""Beside those that are shielded themselves, see test_embedded_shields.py."""


@pytest.fixture(scope="module")
def silero_vad() -> silero.VAD:
    loaded = silero.VAD.load()
    assert isinstance(loaded, silero.VAD)
    return loaded


@pytest.fixture(scope="module")
def undisturbed(silero_vad: silero.VAD) -> list[str]:
    """What the conversation comes to by itself."""

    async def alone() -> list[str]:
        return await Conversation(Job(), vad=silero_vad, stt=ever_tried())()

    return asyncio.run(alone())


@pytest.mark.speech
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_the_conversation_goes_on(
    trouble: str, tmp_path: Path, silero_vad: silero.VAD, undisturbed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "RETRY_S", 0.1)
    monkeypatch.setattr(follower, "SETTLE_S", 0.1)
    released.clear()
    where, what, how = TROUBLES[trouble]
    broken = threading.Event()

    def breaks(*args: Any, **options: Any) -> Any:
        broken.set()
        return how(*args, **options)

    monkeypatch.setattr(where, what, breaks)
    relay, job = SpeechRelay(configured(tmp_path)), Job()
    conversation = Conversation(job, vad=relay.vad(silero_vad), stt=relay.stt(ever_tried()))
    relay.attach(conversation.session, job.context)
    late = asyncio.create_task(latest())
    happened = await conversation()
    late.cancel()
    before = time.monotonic()
    await job.shut_down()

    assert happened == undisturbed
    assert "user: Ever tried." in happened
    assert not conversation.errors
    assert broken.is_set(), "the trouble never came"
    assert time.monotonic() - before < 10, "LiveKit kills a job that takes longer"

    released.set()
    for thread in threading.enumerate():
        if thread.name == "speech-relay":
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()


async def latest() -> None:
    """Fail where the event loop is held up, by more than a busy machine does."""
    while True:
        due = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        assert time.monotonic() - due < 5


def test_what_fails_again_and_again_is_said_once_and_left_alone_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    guard = ErrorGuard(max_failures=MAX_FAILURES)
    calls = []

    def failing() -> None:
        calls.append(1)
        fails()

    shielded = guard(failing)
    with caplog.at_level(logging.ERROR):
        for _ in range(2 * MAX_FAILURES):
            shielded()
    assert len(calls) == MAX_FAILURES
    assert len(caplog.records) == 2
    assert "a transcript" not in caplog.text


async def test_a_log_that_cannot_be_used_is_one_line_and_no_more_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "RETRY_S", 0.01)
    tries, opens, opened = 0, Outbox.open, asyncio.Event()
    loop = asyncio.get_running_loop()

    async def fails_at_first(*args: Any, **options: Any) -> Outbox:
        nonlocal tries
        tries += 1
        if tries <= 5:
            raise OutboxError("the disk is full")
        loop.call_soon_threadsafe(opened.set)
        return await opens(*args, **options)

    monkeypatch.setattr(Outbox, "open", fails_at_first)
    relay, job = SpeechRelay(configured(tmp_path), deliver=False), Job()
    with caplog.at_level(logging.INFO):
        relay.attach(Conversation(job).session, job.context)
        async with asyncio.timeout(30):
            await opened.wait()
        await job.shut_down()
    said = [record.getMessage() for record in caplog.records if "cannot record" in record.getMessage()]
    assert said[0] == "speech-relay cannot record yet: the disk is full"
    assert len([line for line in said if not line.startswith("over after")]) == 1


NOT_ATTACHED = "this SpeechRelay is attached to no session: it reports nothing until relay.attach(session, ctx)"


def not_attached(caplog: pytest.LogCaptureFixture) -> int:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"].count(NOT_ATTACHED)


@pytest.mark.speech
async def test_one_that_is_never_attached_says_so_once(
    tmp_path: Path, silero_vad: silero.VAD, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(speech_relay, "ATTACH_WITHIN_S", 0.1)
    # made before the job, where no event loop runs
    relay = await asyncio.to_thread(SpeechRelay, configured(tmp_path))
    await Conversation(Job(), vad=relay.vad(silero_vad), stt=relay.stt(ever_tried()))()
    assert not_attached(caplog) == 1
    await relay.aclose()
    assert not_attached(caplog) == 1


async def test_one_that_is_closed_before_it_was_attached_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    relay = SpeechRelay(configured(tmp_path))
    assert not_attached(caplog) == 0
    await relay.aclose()
    assert not_attached(caplog) == 1


@pytest.mark.speech
async def test_one_that_is_attached_in_time_says_nothing_of_it(
    tmp_path: Path, silero_vad: silero.VAD, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(speech_relay, "ATTACH_WITHIN_S", 0.1)
    relay, job = SpeechRelay(configured(tmp_path)), Job()
    conversation = Conversation(job, vad=relay.vad(silero_vad), stt=relay.stt(ever_tried()))
    relay.attach(conversation.session, job.context)
    await conversation()
    await job.shut_down()
    assert not_attached(caplog) == 0


def test_a_mailbox_that_nobody_empties_does_not_grow() -> None:
    box: Mailbox[int] = Mailbox()
    for letter in range(MOST_IN_MAILBOX + 10):
        box.put(letter)
    assert asyncio.run(box.take()) == 0
    assert len(box._letters) == MOST_IN_MAILBOX - 1


async def test_letters_come_in_order_from_another_thread() -> None:
    box: Mailbox[int] = Mailbox()

    def send() -> None:
        for letter in range(1000):
            box.put(letter)

    sender = threading.Thread(target=send)
    sender.start()
    async with asyncio.timeout(30):
        assert [await box.take() for _ in range(1000)] == list(range(1000))
    sender.join()
