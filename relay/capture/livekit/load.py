"""How busy this machine is, whether rooms are refused for it, and a word in the log when that changes."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from livekit.agents.utils.hw import get_cpu_monitor

log = logging.getLogger(__name__)

_SAMPLE_S = 0.5
_SAMPLES = 5

_BACK = 0.9
"""Of the limit: below it rooms are taken again. A machine that stays about its limit says so once, and not all day."""

_TARGET = 0.7
"""``agents.target_load`` of a LiveKit server that was not told otherwise: it sends nothing to a worker that reports as
much, and says so nowhere but in its own log."""


class CpuLoad:
    """The share of the processors in use, averaged over 2.5 s; of the container's share where it has one.

    Rooms are refused from the moment that it is above ``limit``, a share from 0 to 1, until it is clearly below.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
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
            if refusing != self._refusing:
                self._refusing = refusing
                self._say()
                await on_change()

    def _say(self) -> None:
        if self._refusing:
            log.warning(
                "This machine is %.0f %% busy (limit %.0f %%): new rooms are refused, and not heard unless "
                "another worker takes them",
                self() * 100,
                self.limit * 100,
            )
        else:
            log.info("This machine is %.0f %% busy: new rooms are taken again", self() * 100)
