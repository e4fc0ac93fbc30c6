"""Listens to one track: opens its log stream, tracker and detectors."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from relay.capture.audio.source import Listener, Track
from relay.capture.detectors import Detectors
from relay.capture.session.stream_session import StreamSession
from relay.clock import Clock
from relay.config.capture import Capture
from relay.config.models import Speech
from relay.errors import StreamTaken
from relay.events.source import SourceFailure
from relay.events.stream import StreamEnd
from relay.ids import new_id
from relay.recording.recorder import Onlooker, Recorder, StreamOpener, open_recorder, tracker_settings
from relay.speech.context import StreamContext
from relay.speech.observations import Ended, Listening, Muted, SourceDown, Unmuted
from relay.telemetry.log_dedup import Complaints

_UNHEARD: Mapping[SourceFailure, str] = {
    "encrypted": "a track is end-to-end encrypted: the relay has no key, and hears nothing of it"
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
        onlookers: Sequence[Onlooker] = (),
    ) -> None:
        self._outbox = outbox
        self._detectors = detectors
        self._clock = clock
        self._away_after_s = capture.away_after.total_seconds() if capture.away_after is not None else None
        self._settings = tracker_settings(speech)
        self._realtime = realtime
        self._onlookers = onlookers
        self._complaints = Complaints()
        self._lost: dict[str, str] = {}
        """Streams that failed while recording, by track. They are still open, so they block a new one."""

    async def __call__(self, track: Track) -> "StreamListener | UnheardListener | None":
        if track.sid in self._lost:
            await self._outbox.give_up(self._lost[track.sid])
            del self._lost[track.sid]
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
        try:
            recorder = await open_recorder(self._outbox, context, self._settings, self._clock, self._onlookers)
        except StreamTaken:
            return None
        if track.unheard is not None:
            self._complaints.warn(context.stream_id, _UNHEARD.get(track.unheard, "a track cannot be heard"))
            return UnheardListener(context.stream_id, track, recorder, self._clock, partial(self._closed, track.sid))
        session = StreamSession(
            track,
            self._detectors,
            recorder.observe,
            self._clock,
            realtime=self._realtime,
            away_after_s=self._away_after_s,
            on_fault=partial(self._complaints.warn, context.stream_id),
        )
        listener = StreamListener(context.stream_id, session, recorder, partial(self._closed, track.sid))
        try:
            await session.start()
        except BaseException:
            # An opened stream must end; otherwise no process could listen to this track again.
            await listener.close("shutdown")
            raise
        return listener

    def _closed(self, track_sid: str, stream_id: str, recorder: Recorder) -> None:
        if recorder.lost.is_set():
            self._lost[track_sid] = stream_id


class UnheardListener(Listener):
    """Writes the stream of a track that cannot be listened to, and the reason."""

    def __init__(
        self,
        stream_id: str,
        track: Track,
        recorder: Recorder,
        clock: Clock,
        on_closed: Callable[[str, Recorder], None],
    ) -> None:
        assert track.unheard is not None  # noqa: S101 - it is made for these alone
        self.stream_id = stream_id
        self._recorder = recorder
        self._on_closed = on_closed
        recorder.observe(Listening(track.subscribed_at, None, track.joined_at, muted=track.muted))
        recorder.observe(SourceDown("audio", track.unheard, clock.now_ms()))

    def mute(self) -> None:
        self._recorder.observe(Muted())

    def unmute(self) -> None:
        self._recorder.observe(Unmuted())

    async def ended(self) -> None:
        """A track that cannot be listened to has no audio that could end."""
        await asyncio.Event().wait()

    async def lost(self) -> None:
        await self._recorder.lost.wait()

    async def close(self, reason: StreamEnd) -> None:
        self._recorder.observe(Ended(reason, heard_ms=0))
        await self._recorder.flush()
        self._recorder.close()
        self._on_closed(self.stream_id, self._recorder)


class StreamListener(Listener):
    """Listens to one track and records what the detectors report."""

    def __init__(
        self,
        stream_id: str,
        session: StreamSession,
        recorder: Recorder,
        on_closed: Callable[[str, Recorder], None],
    ) -> None:
        self.stream_id = stream_id
        self._on_closed = on_closed
        self._session = session
        self._recorder = recorder

    def mute(self) -> None:
        self._session.mute()

    def unmute(self) -> None:
        self._session.unmute()

    async def ended(self) -> None:
        """Wait until the track ends by itself. Raises what its source raised."""
        await self._session.ended()

    async def lost(self) -> None:
        await self._recorder.lost.wait()

    async def close(self, reason: StreamEnd) -> None:
        """Stop listening. Returns when the last event is committed, or known to be lost."""
        await self._session.close(reason)
        await self._recorder.flush()
        self._recorder.close()
        self._on_closed(self.stream_id, self._recorder)
