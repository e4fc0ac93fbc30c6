"""How busy this machine is, honestly, and a word in the log when rooms are refused for it."""

import asyncio
import logging
from collections import deque

from livekit.agents.utils.hw import get_cpu_monitor

log = logging.getLogger(__name__)

_SAMPLE_S = 0.5
_SAMPLES = 5


class CpuLoad:
    """The share of the processors in use, averaged over 2.5 s; of the container's share where it has one.

    A server sends rooms to workers below ``threshold`` only, and does not say when it finds none: a room that nobody
    hears is explained nowhere but here.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._samples: deque[float] = deque(maxlen=_SAMPLES)

    def __call__(self) -> float:
        return sum(self._samples) / len(self._samples) if self._samples else 0.0

    @property
    def refusing(self) -> bool:
        return self() >= self._threshold

    async def run(self) -> None:
        """Measure until cancelled."""
        monitor = get_cpu_monitor()
        was_refusing = False
        while True:
            self._samples.append(await asyncio.to_thread(monitor.cpu_percent, _SAMPLE_S))
            if self.refusing != was_refusing:
                was_refusing = self.refusing
                if was_refusing:
                    log.warning(
                        "This machine is %.0f %% busy (limit %.0f %%): new rooms are refused, and not heard unless "
                        "another worker takes them",
                        self() * 100,
                        self._threshold * 100,
                    )
                else:
                    log.info("This machine is %.0f %% busy: new rooms are taken again", self() * 100)
