"""Records a track that another agent's session listens to."""

from collections.abc import Sequence
from contextlib import suppress

from relay.capture.observe.recording import ObservedTrack
from relay.clock import Clock
from relay.config.models import Speech
from relay.errors import OutboxError, StreamTaken
from relay.ids import new_id
from relay.recording.recorder import Onlooker, Recorder, StreamOpener, open_recorder, tracker_settings
from relay.speech.context import StreamContext
from relay.speech.observations import Observation


class Records:
    """Opens the record of a track: one log stream, whose detectors are unknown. One instance per process."""

    def __init__(
        self, outbox: StreamOpener, clock: Clock, *, speech: Speech, onlookers: Sequence[Onlooker] = ()
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._settings = tracker_settings(speech)
        self._onlookers = onlookers

    async def __call__(self, track: ObservedTrack) -> "StreamRecord | None":
        context = StreamContext(
            stream_id=new_id("str"),
            room=track.room,
            participant=track.participant,
            track_sid=track.sid,
            track_source=track.source,
            vad=None,
            stt=None,
        )
        try:
            recorder = await open_recorder(self._outbox, context, self._settings, self._clock, self._onlookers)
        except StreamTaken:
            return None
        return StreamRecord(context.stream_id, recorder, self._outbox)


class StreamRecord:
    """Records one stream."""

    def __init__(self, stream_id: str, recorder: Recorder, outbox: StreamOpener) -> None:
        self.stream_id = stream_id
        self._recorder = recorder
        self._outbox = outbox

    def observe(self, observation: Observation) -> None:
        self._recorder.observe(observation)

    async def lost(self) -> None:
        await self._recorder.lost.wait()

    async def close(self) -> None:
        """Returns when the last event is committed, or the stream is left to the orphan cleanup."""
        await self._recorder.flush()
        self._recorder.close()
        if self._recorder.lost.is_set():
            with suppress(OutboxError):  # the orphan cleanup ends it when this process is gone
                await self._outbox.give_up(self.stream_id)
