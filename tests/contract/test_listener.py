"""A listener over the real log: what happens to the track when the log fails for good, or its audio breaks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from livekit import rtc

from relay.app.orphans import close_orphans_once
from relay.capture.audio.frames import heard_from
from relay.capture.audio.source import SAMPLE_RATE, Listener
from relay.capture.detectors import Providers
from relay.capture.livekit import track_audio
from relay.capture.livekit import track_supervisor as supervisor
from relay.capture.livekit.stats import RoomStats
from relay.capture.livekit.track_audio import TrackAudio
from relay.capture.livekit.track_supervisor import Opened, TrackSupervisor
from relay.clock import SystemClock
from relay.config.capture import Capture, Provider
from relay.config.models import Speech
from relay.events.catalog import parse
from relay.events.stream import StreamEnded, StreamStarted
from relay.outbox.log import stream_log
from relay.outbox.outbox import Outbox
from relay.outbox.records import Record
from relay.outbox.sqlite import write_lock as turn
from relay.outbox.sqlite.write_lock import WriteLock
from relay.recording.recorder import Records, tracker_settings
from relay.recording.track import Listeners
from relay.speech.observations import Ended, Listening, VadEnded, VadStarted
from tests.support.audio.speech import a_track
from tests.support.providers.deepgram import Deepgram
from tests.unit.timelines.play import context


class Silence:
    """A track on which nobody says anything, for as long as it is listened to."""

    dropped_ms = 0

    def __init__(self) -> None:
        self._over = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        while not self._over.is_set():
            yield rtc.AudioFrame.create(SAMPLE_RATE, 1, SAMPLE_RATE // 50)
            await asyncio.sleep(0.02)

    async def aclose(self) -> None:
        self._over.set()


async def test_a_track_whose_log_failed_is_listened_to_again_once_the_log_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "LONGEST_WAIT_S", 0.1)
    clock = SystemClock()
    outbox = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="job", clock=clock, retry_s=0.1)
    capture = Capture(stt=Provider(provider="none"))
    providers = Providers(capture.vad, capture.stt)
    listeners = Listeners(outbox, providers.detectors(), clock, capture=capture, speech=Speech())
    first = await listeners(a_track(Silence(), subscribed_at=0))
    assert first is not None
    assert await listeners(a_track(Silence(), subscribed_at=0)) is None, "one track, one listener"

    somebody_else = WriteLock(tmp_path / "relay.db.lock")
    with somebody_else.taken():
        first.mute()
        async with asyncio.timeout(30):
            await first.lost()
        await first.close("worker_lost")
    somebody_else.close()

    assert await listeners(a_track(Silence(), subscribed_at=0)) is None, "the stream that was lost is not ended yet"
    async with asyncio.timeout(30):
        while (second := await listeners(a_track(Silence(), subscribed_at=0))) is None:
            await close_orphans_once(outbox, clock)  # a machine may be too busy for the first try's 0.1 s
    await second.close("unpublished")
    told = [[record.type for record in await outbox.history(one.stream_id)] for one in (first, second)]
    assert told == [["stream.started", "stream.ended"], ["stream.started", "stream.ended"]]
    await outbox.aclose()
    await providers.aclose()


async def test_a_stream_whose_event_cannot_be_made_is_lost_and_another_one_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_memory(_event: object) -> Record:
        raise MemoryError

    clock = SystemClock()
    outbox = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="job", clock=clock)
    records = Records(outbox, clock, tracker_settings(Speech()))
    first = await records.open(context())
    assert first is not None
    first.observe(Listening(0, None, None))
    with monkeypatch.context() as patch:
        patch.setattr(stream_log, "record", no_memory)
        first.observe(VadStarted(0, 50))
    async with asyncio.timeout(30):
        await first.lost()
        first.observe(VadEnded(500))
        first.observe(Ended("worker_lost", heard_ms=500))
        await first.close()
        await close_orphans_once(outbox, clock)
        second = await records.open(replace(context(), stream_id="str_2"))
    assert second is not None
    second.observe(Listening(0, None, None))
    second.observe(Ended("unpublished", heard_ms=0))
    await second.close()
    told = {stream: [record.type for record in await outbox.history(stream)] for stream in (first.stream_id, "str_2")}
    await outbox.aclose()
    assert told == {stream: ["stream.started", "stream.ended"] for stream in (first.stream_id, "str_2")}
    (line,) = (record for record in caplog.records if record.name == "relay.recording.recorder")
    assert "MemoryError" in line.getMessage()


async def test_a_key_that_is_refused_for_three_tracks_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "relay.telemetry")
    clock = SystemClock()
    outbox = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="job", clock=clock)
    async with Deepgram([[]]) as provider:
        options = {**provider.options, "api_key": "another"}
        stt = {"provider": "deepgram", "options": options}
        capture = Capture.model_validate({"vad": {"provider": "none"}, "stt": stt})
        providers = Providers(capture.vad, capture.stt)
        listeners = Listeners(outbox, providers.detectors(), clock, capture=capture, speech=Speech())
        opened = [
            await listeners(replace(a_track(Silence(), subscribed_at=0), sid=f"TR_{number}", audio=Silence()))
            for number in range(3)
        ]
        async with asyncio.timeout(30):
            for listener in opened:
                assert listener is not None
                while "source.failed" not in [one.type for one in await outbox.history(listener.stream_id)]:
                    pass
                await listener.close("unpublished")
        await providers.aclose()
    warnings = [
        one for one in caplog.records if one.levelno == logging.WARNING and "wrong API key?" in one.getMessage()
    ]
    assert len(warnings) == 1
    assert getattr(warnings[0], "stream_id", None) in [listener.stream_id for listener in opened if listener]
    await outbox.aclose()


async def test_a_track_whose_audio_breaks_is_listened_to_again_and_its_streams_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_GONE_WITHIN_S", 0.01)
    monkeypatch.setattr(supervisor, "_RETRY_S", (0.01,))
    breaking = asyncio.Event()

    def breaks(frame: rtc.AudioFrame, began: float) -> None:
        if breaking.is_set():
            raise IndexError("pop from an empty deque")
        heard_from(frame, began)

    monkeypatch.setattr(track_audio, "heard_from", breaks)
    clock, source = SystemClock(), rtc.AudioSource(SAMPLE_RATE, 1)
    voice = rtc.LocalAudioTrack.create_audio_track("voice", source)
    outbox = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="job", clock=clock)
    capture = Capture(stt=Provider(provider="none"))
    providers = Providers(capture.vad, capture.stt)
    listeners = Listeners(outbox, providers.detectors(), clock, capture=capture, speech=Speech())
    opened: list[Listener] = []

    async def open_track(muted: bool) -> Opened:
        audio = TrackAudio(voice, RoomStats(rtc.Room()))
        breaking.clear()
        listener = await listeners(replace(a_track(Silence(), subscribed_at=0), audio=audio, muted=muted))
        assert listener is not None
        opened.append(listener)
        return Opened(audio, listener)

    one = TrackSupervisor("TR_1", False, open_track)
    async with asyncio.timeout(20):
        for streams in (1, 2):
            while len(opened) < streams or not await outbox.history(opened[-1].stream_id):
                await source.capture_frame(rtc.AudioFrame.create(SAMPLE_RATE, 1, SAMPLE_RATE // 50))
            if streams == 1:
                breaking.set()
    one.end("unpublished")
    await one.task

    ends = []
    for listener in opened:
        began, *_, end = [parse(record.body) for record in await outbox.history(listener.stream_id)]
        assert isinstance(began, StreamStarted)
        assert isinstance(end, StreamEnded)
        assert began.data.first_frame_at is not None
        ends.append(end.data.reason)
    assert ends == ["worker_lost", "unpublished"]
    assert caplog.text.count("IndexError") == 1
    assert "empty deque" not in caplog.text
    await outbox.aclose()
    await providers.aclose()
    await source.aclose()
