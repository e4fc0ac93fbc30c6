"""Listeners that only record: what opened, how much audio arrived, and how it ended."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from relay.capture.audio.source import Track
from relay.events.stream import StreamEnd


@dataclass
class FakeListener:
    track: Track
    changed: asyncio.Event
    """Set whenever anything was recorded."""
    close_s: float = 0.0
    close_with: asyncio.Barrier | None = None
    """Closing waits until as many listeners are closing as it has parties."""
    samples: int = 0
    """Received audio, at 16 kHz."""
    peak: int = 0
    """The loudest sample."""
    mutes: list[bool] = field(default_factory=list)
    end: StreamEnd | None = None
    """Set once the audio was read to its end and the listener has closed."""
    audio_ended: bool = False
    stream_id: str = "str_fake"
    losing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to make the listener report that it is lost."""
    _reading: asyncio.Task[None] | None = None

    @property
    def who(self) -> str:
        return self.track.participant.identity

    def start(self) -> None:
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for frame in self.track.audio:
            assert (frame.sample_rate, frame.num_channels) == (16_000, 1)
            self.samples += frame.samples_per_channel
            self.peak = max(self.peak, *frame.data)
            self.changed.set()
        self.audio_ended = True
        self.changed.set()

    def mute(self) -> None:
        self.mutes.append(True)
        self.changed.set()

    def unmute(self) -> None:
        self.mutes.append(False)
        self.changed.set()

    async def lost(self) -> None:
        await self.losing.wait()

    async def ended(self) -> None:
        assert self._reading is not None
        await asyncio.shield(self._reading)

    async def close(self, reason: StreamEnd) -> None:
        assert self.end is None, "closed twice"
        await asyncio.sleep(self.close_s)
        if self.close_with is not None:
            await self.close_with.wait()
        assert self._reading is not None
        await self._reading
        self.end = reason
        self.changed.set()


class FakeListeners:
    """An ``OpenListener``. ``refuse`` is how many opens it first answers with None.

    ``close_together``: no listener closes before this many are closing.
    """

    def __init__(self, *, close_s: float = 0.0, close_together: int = 0, refuse: int = 0) -> None:
        self.opened: list[FakeListener] = []
        self.refused = 0
        self._changed = asyncio.Event()
        self._close_s = close_s
        self._close_with = asyncio.Barrier(close_together) if close_together else None
        self._refuse = refuse

    async def __call__(self, track: Track) -> FakeListener | None:
        if self.refused < self._refuse:
            self.refused += 1
            self._changed.set()
            return None
        listener = FakeListener(track, self._changed, close_s=self._close_s, close_with=self._close_with)
        listener.start()
        self.opened.append(listener)
        self._changed.set()
        return listener

    def of(self, identity: str) -> list[FakeListener]:
        """This identity's listeners, in the order of their opening."""
        return [listener for listener in self.opened if listener.who == identity]

    async def until(self, condition: Callable[[], bool], *, within: float = 60.0) -> None:
        """Wait until a recorded change makes ``condition`` true."""
        async with asyncio.timeout(within):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
