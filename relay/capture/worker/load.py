"""Measures the machine's load, refuses rooms above the limit, and logs changes."""

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
"""A fraction of the limit: below it rooms are accepted again. A machine that stays near its limit logs this once, not
all day."""

_CALM_MS = 60_000
"""How long rooms must have been accepted before that is logged, and the minimum time between two lines: a load that
swings around the limit is one line."""

_TARGET = 0.7
"""``agents.target_load`` of a LiveKit server by default: it sends nothing to a worker that reports this much, and
reports that only in its own log."""


class CpuLoad:
    """The share of the processors in use, averaged over 2.5 s; of the container's share where it has one.

    Rooms are refused once it is above ``limit``, a share from 0 to 1, until it is clearly below.
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
        """The load to report: below the server's limit while rooms are accepted, and full otherwise.

        The server spreads rooms by this number, so it is a share of this machine's limit.
        """
        return 1.0 if self._refusing else min(self() / self.limit, 0.99) * _TARGET

    async def run(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Measure until cancelled. ``on_change`` is awaited whenever the worker starts or stops refusing rooms."""
        monitor = get_cpu_monitor()
        while True:
            self._samples.append(await asyncio.to_thread(monitor.cpu_percent, _SAMPLE_S))
            refusing = self() > self.limit * (_BACK if self._refusing else 1)
            changed, self._refusing = refusing != self._refusing, refusing
            self._notices.observe(refusing, self(), self.limit)
            if changed:
                await on_change()


class LoadNotices:
    """Logs load changes: a refusal at once, acceptance after a calm minute; at most one line a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said = False
        """Whether the last line reported a refusal."""
        self._said_at: int | None = None
        self._refused_at = 0

    def observe(self, refusing: bool, load: float, limit: float) -> None:
        """Take the current state, and log it if it changed."""
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
            log.info("This machine is %.0f %% busy: new rooms are accepted again", load * 100)
