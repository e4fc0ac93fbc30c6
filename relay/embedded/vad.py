"""Voice activity detection of somebody else's session, overheard."""

from typing import TypeVar

from livekit import rtc
from livekit.agents import vad

from relay.capture.lead import Lead
from relay.capture.taps.segments import Report, Segments
from relay.embedded.media import Feed, MediaClock
from relay.embedded.shield import Shield
from relay.embedded.view import view, watch
from relay.speech.observations import VadEnded, VadStarted

V = TypeVar("V", bound=vad.VAD)


class VadTap:
    """Reports what the streams of a detector say.

    Several at once hear the same audio (speech recognition that does not stream has one of its own): the oldest one
    that is open is reported.
    """

    def __init__(self, report: Report, media: MediaClock, shield: Shield) -> None:
        self._report = report
        self._media = media
        self._shield = shield
        self._open: list[_StreamTap] = []
        self.follow = shield(self._follow)

    def wrap(self, detector: V) -> V:
        """The detector, overheard."""
        return view(detector, _Vad, relay_tap=self)

    def _follow(self, stream: vad.VADStream) -> None:
        tap = _StreamTap(self._report, self._media, self._shield, self._open)
        watch(stream, _VadStream, relay_tap=tap)


class _StreamTap:
    def __init__(self, report: Report, media: MediaClock, shield: Shield, opened: "list[_StreamTap]") -> None:
        self._report = report
        self._open = opened
        self._open.append(self)
        self._started = False
        self._over = False
        self._feed = Feed(media)
        self._segments = Segments(self._told, Lead())
        self.pushed = shield(self._pushed)
        self.happened = shield(self._segments.happened)
        self.flushed = shield(self._flushed)
        self.closed = shield(self._closed)

    def ends(self) -> None:
        """LiveKit flushes a stream to end it, and what it is in the middle of goes on to its end."""
        self._over = True

    def _pushed(self, frame: rtc.AudioFrame) -> None:
        self._feed.take(frame)
        self._segments.pushed(frame)

    def _flushed(self) -> None:
        if not self._over:
            self._segments.flushed()

    def _closed(self) -> None:
        self._segments.closed()
        if self in self._open:
            self._open.remove(self)

    def _told(self, edge: VadStarted | VadEnded) -> None:
        if isinstance(edge, VadStarted):
            self._started = self._open[0] is self
        if self._started:
            self._report(edge)


class _Vad(vad.VAD):
    relay_tap: VadTap

    def stream(self) -> vad.VADStream:
        stream = super().stream()  # type: ignore[safe-super]  # the plugin's own comes next, see view.py
        self.relay_tap.follow(stream)
        return stream


class _VadStream(vad.VADStream):
    relay_tap: _StreamTap

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        self.relay_tap.pushed(frame)
        super().push_frame(frame)

    def flush(self) -> None:
        self.relay_tap.flushed()
        super().flush()

    def end_input(self) -> None:
        self.relay_tap.ends()
        super().end_input()

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            self.relay_tap.closed()

    async def __anext__(self) -> vad.VADEvent:
        event = await super().__anext__()
        self.relay_tap.happened(event)
        return event
