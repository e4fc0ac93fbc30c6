"""Listens to one track: opens its log stream, tracker and detectors."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from relay.capture.audio.source import Listener, Track
from relay.capture.detectors import Detectors
from relay.capture.observe.recording import ObservedTrack
from relay.capture.session.stream_session import StreamSession
from relay.clock import Clock
from relay.config.capture import Capture
from relay.config.models import Speech
from relay.events.stream import SourceFailure, StreamEnd
from relay.ids import new_id
from relay.recording.metrics import CaptureMetrics
from relay.recording.recorder import EventListener, Records, StreamOpener, StreamRecord, tracker_settings
from relay.speech.context import StreamContext
from relay.speech.observations import Ended, Listening, Muted, SourceDown, Unmuted
from relay.telemetry.log_dedup import Complaints

_UNHEARD: Mapping[SourceFailure, str] = {
    "encrypted": "a track is end-to-end encrypted: the relay has no key and cannot decode it"
}


class Listeners:
    """Opens a track's listener: one log stream, fed by one agent session. One instance per process."""

    def __init__(
        self,
        outbox: StreamOpener,
        detectors: Detectors,
        clock: Clock,
        *,
        capture: Capture,
        speech: Speech,
        realtime: bool = True,
        event_listeners: Sequence[EventListener] = (),
        metrics: CaptureMetrics | None = None,
    ) -> None:
        self._metrics = metrics or CaptureMetrics()
        self._records = Records(outbox, clock, tracker_settings(speech), event_listeners, self._metrics)
        self._detectors = detectors
        self._clock = clock
        self._away_after_s = capture.away_after.total_seconds() if capture.away_after is not None else None
        self._realtime = realtime
        self._complaints = Complaints()

    async def __call__(self, track: Track) -> "StreamListener | UnheardListener | None":
        context = StreamContext(
            stream_id=new_id("str"),
            room=track.room,
            participant=track.participant,
            track_sid=track.sid,
            track_source=track.source,
            vad=self._detectors.vad,
            stt=self._detectors.stt,
            realtime=self._detectors.realtime,
        )
        record = await self._records.open(context)
        if record is None:
            return None
        if track.unheard is not None:
            self._complaints.warn(context.stream_id, _UNHEARD.get(track.unheard, "a track cannot be heard"))
            return UnheardListener(track, record, self._clock)
        session = StreamSession(
            track,
            self._detectors,
            record.observe,
            self._clock,
            realtime=self._realtime,
            away_after_s=self._away_after_s,
            on_fault=partial(self._complaints.warn, context.stream_id),
            on_failure=partial(self._metrics.stt_failed, context.realtime or context.stt),
        )
        listener = StreamListener(session, record)
        try:
            await session.start()
        except BaseException:
            # An opened stream must end; otherwise no process could listen to this track again.
            await listener.close("shutdown")
            raise
        return listener


class UnheardListener(Listener):
    """Writes the stream of a track that cannot be listened to, and the reason."""

    def __init__(self, track: Track, record: StreamRecord, clock: Clock) -> None:
        assert track.unheard is not None  # noqa: S101 - it is made for these alone
        self.stream_id = record.stream_id
        self._record = record
        record.observe(Listening(track.subscribed_at, None, track.joined_at, muted=track.muted))
        record.observe(SourceDown("audio", track.unheard, clock.now_ms()))

    def mute(self) -> None:
        self._record.observe(Muted())

    def unmute(self) -> None:
        self._record.observe(Unmuted())

    async def ended(self) -> None:
        """A track that cannot be listened to has no audio that could end."""
        await asyncio.Event().wait()

    async def lost(self) -> None:
        await self._record.lost()

    async def close(self, reason: StreamEnd) -> None:
        self._record.observe(Ended(reason, heard_ms=0))
        await self._record.close()


class StreamListener(Listener):
    """Listens to one track and records what the detectors report."""

    def __init__(self, session: StreamSession, record: StreamRecord) -> None:
        self.stream_id = record.stream_id
        self._session = session
        self._record = record

    def mute(self) -> None:
        self._session.mute()

    def unmute(self) -> None:
        self._session.unmute()

    async def ended(self) -> None:
        """Wait until the track ends by itself. Raises what its source raised."""
        await self._session.ended()

    async def lost(self) -> None:
        await self._record.lost()

    async def close(self, reason: StreamEnd) -> None:
        """Stop listening. Returns when the last event is committed, or known to be lost."""
        await self._session.close(reason)
        await self._record.close()


class Observers:
    """Opens the record of a track, whose detectors are unknown."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def __call__(self, track: ObservedTrack) -> StreamRecord | None:
        return await self._records.open(
            StreamContext(
                stream_id=new_id("str"),
                room=track.room,
                participant=track.participant,
                track_sid=track.sid,
                track_source=track.source,
                vad=None,
                stt=None,
            )
        )
