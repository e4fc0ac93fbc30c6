"""One track while it is heard: whatever comes in whatever order, its listener opens once and closes once."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from livekit import rtc

from relay.capture.livekit import track_supervisor as module
from relay.capture.livekit.stats import RoomStats
from relay.capture.livekit.track_audio import TrackAudio
from relay.capture.livekit.track_supervisor import Opened, TrackSupervisor
from relay.errors import OutboxError
from relay.events.stream import StreamEnd

RATE = 48_000


class Voice:
    """A local track, which needs no server, fed by hand."""

    def __init__(self) -> None:
        self._source = rtc.AudioSource(RATE, 1)
        self.track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)

    async def say(self, seconds: float) -> None:
        for _ in range(round(seconds * 100)):
            await self._source.capture_frame(rtc.AudioFrame(b"\1\1" * (RATE // 100), RATE, 1, RATE // 100))
        await self._source.wait_for_playout()

    async def aclose(self) -> None:
        await self._source.aclose()


@pytest.fixture
async def voice() -> AsyncIterator[Voice]:
    fed = Voice()
    yield fed
    await fed.aclose()


class Told:
    """A listener that remembers what it was told."""

    stream_id = "str_told"

    def __init__(self, muted: bool) -> None:
        self.history: list[str] = ["open muted" if muted else "open"]
        self.losing = asyncio.Event()
        self.ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def mute(self) -> None:
        self.history.append("mute")

    def unmute(self) -> None:
        self.history.append("unmute")

    async def lost(self) -> None:
        await self.losing.wait()

    async def ended(self) -> None:
        await asyncio.shield(self.ending)

    async def close(self, reason: StreamEnd) -> None:
        self.history.append(reason)


class Opener:
    """Opens listeners when it is let, and fails or refuses as it is told."""

    def __init__(self, voice: Voice, *before: Exception | None) -> None:
        self.let = asyncio.Event()
        self.opened: list[Told] = []
        self.tries = 0
        self.audios: list[TrackAudio] = []
        self._voice = voice
        self._before = list(before)

    def has_opened(self, many: int) -> bool:
        return len(self.opened) == many

    async def __call__(self, muted: bool) -> Opened:
        self.tries += 1
        await self.let.wait()
        audio = TrackAudio(self._voice.track, RoomStats(rtc.Room()))
        self.audios.append(audio)
        if self._before:
            problem = self._before.pop(0)
            if problem is None:
                return Opened(audio, None)
            await audio.aclose()
            raise problem
        listener = Told(muted)
        self.opened.append(listener)
        return Opened(audio, listener)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for happens on this loop, a turn or two later
            await asyncio.sleep(0)


async def test_nothing_waits_for_a_stream_that_has_ended(voice: Voice) -> None:
    opener = Opener(voice)
    opener.let.set()
    before = asyncio.all_tasks()
    supervisor = TrackSupervisor("TR_1", False, opener)
    await until(lambda: opener.has_opened(1))
    supervisor.end("unpublished")
    await supervisor.task
    await until(lambda: asyncio.all_tasks() == before)


async def test_a_failure_that_lasts_is_one_line_and_its_end_another(
    voice: Voice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", (0.0,))
    opener = Opener(voice, *[OutboxError("the disk is full")] * 5)
    opener.let.set()
    with caplog.at_level(logging.INFO):
        supervisor = TrackSupervisor("TR_1", False, opener)
        await until(lambda: opener.has_opened(1))
        supervisor.end("unpublished")
        await supervisor.task
    words = "Track TR_1 cannot be recorded; trying again"
    failed, over = [record.getMessage() for record in caplog.records]
    assert failed == f"{words}: the disk is full"
    assert over.startswith("over after ")
    assert over.endswith(words)


async def test_mutes_that_come_while_it_opens_are_told_in_their_order(voice: Voice) -> None:
    opener = Opener(voice)
    supervisor = TrackSupervisor("TR_1", False, opener)
    await until(lambda: opener.tries == 1)
    for muted in (True, True, False, True):
        supervisor.mute(muted)
    opener.let.set()
    await until(lambda: bool(opener.opened))
    supervisor.mute(False)
    supervisor.end("disconnected")
    await supervisor.task
    assert opener.opened[0].history == ["open", "mute", "unmute", "mute", "unmute", "disconnected"]


async def test_one_that_ends_while_it_opens_is_opened_and_closed_with_the_first_reason(voice: Voice) -> None:
    opener = Opener(voice)
    supervisor = TrackSupervisor("TR_1", True, opener)
    await until(lambda: opener.tries == 1)
    supervisor.end("unpublished")
    supervisor.end("shutdown")
    opener.let.set()
    await supervisor.task
    assert opener.opened[0].history == ["open muted", "unpublished"]


async def test_one_that_ends_before_it_begins_is_never_opened(voice: Voice) -> None:
    opener = Opener(voice)
    supervisor = TrackSupervisor("TR_1", False, opener)
    supervisor.end("shutdown")
    await supervisor.task
    assert opener.tries == 0


async def test_refused_or_failed_it_is_tried_again_with_the_mute_of_then(
    voice: Voice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", (0.01,))
    opener = Opener(voice, None, OutboxError("disk full"), None)
    supervisor = TrackSupervisor("TR_1", False, opener)
    supervisor.mute(True)
    opener.let.set()
    await until(lambda: bool(opener.opened))
    supervisor.end("room_ended")
    await supervisor.task
    assert opener.tries == 4
    assert opener.opened[0].history == ["open muted", "room_ended"]
    assert "disk full" in caplog.text


async def test_a_listener_that_is_lost_is_closed_and_another_one_opened(
    voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", (0.01,))
    opener = Opener(voice)
    supervisor = TrackSupervisor("TR_1", False, opener)
    opener.let.set()
    await until(lambda: bool(opener.opened))
    supervisor.mute(True)
    opener.opened[0].losing.set()
    await until(lambda: len(opener.opened) == 2)
    supervisor.end("unpublished")
    await supervisor.task
    assert [listener.history for listener in opener.opened] == [
        ["open", "mute", "worker_lost"],
        ["open muted", "unpublished"],
    ]


@pytest.mark.parametrize("broke_with", [None, ValueError("what alice said")], ids=["ends", "breaks"])
async def test_audio_that_is_over_while_the_track_is_there_is_told_and_listened_to_again(
    voice: Voice, broke_with: Exception | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", (0.01,))
    monkeypatch.setattr(module, "_GONE_WITHIN_S", 0.01)
    opener = Opener(voice)
    supervisor = TrackSupervisor("TR_1", False, opener)
    opener.let.set()
    await until(lambda: bool(opener.opened))
    over(opener.opened[0], broke_with)
    await until(lambda: len(opener.opened) == 2)
    supervisor.end("unpublished")
    await supervisor.task
    assert [listener.history for listener in opener.opened] == [["open", "worker_lost"], ["open", "unpublished"]]
    (line,) = caplog.records
    assert ("ValueError" in line.getMessage()) is (broke_with is not None)
    assert "what alice said" not in caplog.text
    assert vars(line)["stream_id"] == "str_told"


async def test_the_audio_of_a_track_that_goes_away_may_be_over_before_the_room_says_so(
    voice: Voice, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GONE_WITHIN_S", 60.0)
    opener = Opener(voice)
    supervisor = TrackSupervisor("TR_1", False, opener)
    opener.let.set()
    await until(lambda: bool(opener.opened))
    over(opener.opened[0], None)
    await asyncio.sleep(0.1)
    supervisor.mute(True)
    supervisor.end("disconnected")
    async with asyncio.timeout(30):
        await supervisor.task
    assert [listener.history for listener in opener.opened] == [["open", "mute", "disconnected"]]
    assert not caplog.records


async def test_a_track_whose_audio_is_over_again_and_again_is_tried_ever_later(
    voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", (0.01, 0.01, 60.0))
    monkeypatch.setattr(module, "_GONE_WITHIN_S", 0.01)
    opener = Opener(voice)
    supervisor = TrackSupervisor("TR_1", False, opener)
    opener.let.set()
    for opened in (1, 2, 3):
        await until(partial(opener.has_opened, opened))
        over(opener.opened[-1], None)
        await until(lambda: opener.opened[-1].history[-1] == "worker_lost")
    await asyncio.sleep(0.1)
    assert len(opener.opened) == 3
    supervisor.end("shutdown")
    async with asyncio.timeout(30):
        await supervisor.task


def over(listener: Told, broke_with: Exception | None) -> None:
    if broke_with is None:
        listener.ending.set_result(None)
    else:
        listener.ending.set_exception(broke_with)


async def test_waiting_for_another_try_ends_at_once(voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", (60.0,))
    opener = Opener(voice, None)
    supervisor = TrackSupervisor("TR_1", False, opener)
    opener.let.set()
    await until(lambda: bool(opener.audios))
    supervisor.end("shutdown")
    async with asyncio.timeout(30):
        await supervisor.task
    assert opener.opened == []


async def test_a_listener_that_fails_hurts_nobody_but_itself(voice: Voice, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Told):
        def mute(self) -> None:
            raise TypeError("a bug")

        async def close(self, reason: StreamEnd) -> None:
            raise RuntimeError("another")

    listener = Broken(False)

    async def open_track(_muted: bool) -> Opened:
        return Opened(TrackAudio(voice.track, RoomStats(rtc.Room())), listener)

    supervisor = TrackSupervisor("TR_1", False, open_track)
    await asyncio.sleep(0)
    supervisor.mute(True)
    supervisor.mute(False)
    await until(lambda: "unmute" in listener.history)
    supervisor.end("shutdown")
    await supervisor.task
    assert "observe failed (TypeError at test_livekit_supervisor.py:" in caplog.text
    assert "did not end cleanly: RuntimeError at test_livekit_supervisor.py:" in caplog.text
    assert "another" not in caplog.text, "a message may quote a transcript"


async def test_audio_is_kept_from_the_start_and_read_to_its_end_after_the_track_is_gone(voice: Voice) -> None:
    audio = TrackAudio(voice.track, RoomStats(rtc.Room()))
    await voice.say(0.5)
    audio.finish()
    frames = [frame async for frame in audio]
    await audio.aclose()
    await audio.aclose()
    assert {(frame.sample_rate, frame.num_channels, frame.samples_per_channel) for frame in frames} == {
        (16_000, 1, 512)
    }
    assert 0.4 <= sum(frame.duration for frame in frames) <= 0.6


async def test_closing_audio_ends_who_reads_it_at_once(voice: Voice) -> None:
    audio = TrackAudio(voice.track, RoomStats(rtc.Room()))

    async def read() -> int:
        return len([frame async for frame in audio])

    reading = asyncio.create_task(read())
    await voice.say(0.1)
    await audio.aclose()
    async with asyncio.timeout(30):
        assert await reading >= 1
