"""How busy this machine is, whether rooms are refused for it, and a word in the log when that changes."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from livekit.agents.utils.hw import get_cpu_monitor

from relay.clock import Clock, SystemClock

log = logging.getLogger(__name__)

_SAMPLE_S = 0.5
_SAMPLES = 5

_BACK = 0.9
"""Of the limit: below it rooms are taken again. A machine that stays about its limit says so once, and not all day."""

_CALM_MS = 60_000
"""How long rooms must have been taken for that to be logged, and the least between two lines: a load that swings about
the limit is one line."""

_TARGET = 0.7
"""``agents.target_load`` of a LiveKit server that was not told otherwise: it sends nothing to a worker that reports as
much, and says so nowhere but in its own log."""


class CpuLoad:
    """The share of the processors in use, averaged over 2.5 s; of the container's share where it has one.

    Rooms are refused from the moment that it is above ``limit``, a share from 0 to 1, until it is clearly below.
    """

    def __init__(self, limit: float, clock: Clock | None = None) -> None:
        self.limit = limit
        self._notices = LoadNotices(clock or SystemClock())
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._refusing = False

    def __call__(self) -> float:
        return sum(self._samples) / len(self._samples) if self._samples else 0.0

    @property
    def refusing(self) -> bool:
        return self._refusing

    def reported(self) -> float:
        """What the server is told: less than it stops at for as long as rooms are taken, and all of it otherwise.

        It spreads rooms by this number, so that it is a share of what this machine may take.
        """
        return 1.0 if self._refusing else min(self() / self.limit, 0.99) * _TARGET

    async def run(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Measure until cancelled. ``on_change`` is awaited whenever rooms begin or cease to be refused."""
        monitor = get_cpu_monitor()
        while True:
            self._samples.append(await asyncio.to_thread(monitor.cpu_percent, _SAMPLE_S))
            refusing = self() > self.limit * (_BACK if self._refusing else 1)
            changed, self._refusing = refusing != self._refusing, refusing
            self._notices.observe(refusing, self(), self.limit)
            if changed:
                await on_change()


class LoadNotices:
    """What is logged of the load. Refusing is said at once, taking again after a calm minute; never two in a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said = False
        """Whether the last line said that rooms are refused."""
        self._said_at: int | None = None
        self._refused_at = 0

    def observe(self, refusing: bool, load: float, limit: float) -> None:
        """Take in the state of now, and log it if it is news."""
        now = self._clock.steady_ms()
        if refusing:
            self._refused_at = now
        calm = now - self._refused_at >= _CALM_MS
        recent = self._said_at is not None and now - self._said_at < _CALM_MS
        if refusing == self._said or recent or not (refusing or calm):
            return
        self._said, self._said_at = refusing, now
        if refusing:
            log.warning(
                "This machine is %.0f %% busy (limit %.0f %%): new rooms are refused, and not heard unless "
                "another worker takes them",
                load * 100,
                limit * 100,
            )
        else:
            log.info("This machine is %.0f %% busy: new rooms are taken again", load * 100)
