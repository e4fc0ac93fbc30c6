"""What it takes to listen to one track: its stream in the log, its tracker, its detectors."""

from collections.abc import Callable, Sequence
from functools import partial

from relay.capture.providers.detectors import Detectors
from relay.capture.session import StreamSession
from relay.capture.source import Listener, Track
from relay.clock import Clock
from relay.config.capture import Capture
from relay.config.models import Speech
from relay.errors import StreamTaken
from relay.events.stream import StreamEnd
from relay.ids import new_id
from relay.recorder import Onlooker, Recorder, StreamOpener, open_recorder, tracker_settings
from relay.speech.context import StreamContext
from relay.telemetry.complaints import Complaints


class Listeners:
    """Opens the listener of a track: one stream in the log, fed by one agent session. One per process."""

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
        """Streams that can no longer be recorded, by the track that they were of: still open, so in the way of anew."""

    async def __call__(self, track: Track) -> "StreamListener | None":
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
            # What was opened must end, or nobody could listen to this track again.
            await listener.close("shutdown")
            raise
        return listener

    def _closed(self, track_sid: str, listener: "StreamListener") -> None:
        if listener.is_lost:
            self._lost[track_sid] = listener.stream_id


class StreamListener(Listener):
    """Listens to one track and writes down what is heard."""

    def __init__(
        self,
        stream_id: str,
        session: StreamSession,
        recorder: Recorder,
        on_closed: Callable[["StreamListener"], None],
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
        """Wait until the track is over by itself. Raises what its source raised."""
        await self._session.ended()

    @property
    def is_lost(self) -> bool:
        """Whether what is heard can no longer be written down."""
        return self._recorder.lost.is_set()

    async def lost(self) -> None:
        await self._recorder.lost.wait()

    async def close(self, reason: StreamEnd) -> None:
        """Stop listening; done when the last event is committed, or known to be lost."""
        await self._session.close(reason)
        await self._recorder.flush()
        self._recorder.close()
        self._on_closed(self)
