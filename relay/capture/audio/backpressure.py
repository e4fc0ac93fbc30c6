"""How far the feed is ahead of the detectors that say how far they have come."""

import asyncio

from relay.capture.audio.source import SAMPLE_RATE

MOST = SAMPLE_RATE // 2
"""Samples that a feed faster than real time may be ahead: enough to keep the detectors busy, little enough that voice
activity and transcripts stay in step."""


class Lead:
    """Samples fed and samples heard, per detector. Without any detector nothing is ever behind."""

    def __init__(self, *detectors: str) -> None:
        self._heard = dict.fromkeys(detectors, 0)
        self._fed = 0
        self._moved = asyncio.Event()

    def fed(self, samples: int) -> None:
        """The feed has come to this sample."""
        self._fed = samples

    def heard(self, detector: str, samples: int) -> None:
        """This detector has come to this sample."""
        if samples > self._heard.get(detector, samples):
            self._heard[detector] = samples
            self._moved.set()

    def lost(self, detector: str) -> None:
        """This detector says no more how far it has come, and is not waited for."""
        self._heard.pop(detector, None)
        self._moved.set()

    async def within(self, samples: int = MOST) -> None:
        """Wait until the slowest detector is at most this far behind the feed."""
        while self._heard and self._fed - min(self._heard.values()) > samples:
            self._moved.clear()
            await self._moved.wait()
