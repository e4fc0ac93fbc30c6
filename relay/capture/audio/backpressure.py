"""Bounds how far the feed is ahead of the detectors that report their progress."""

import asyncio

from relay.capture.audio.source import SAMPLE_RATE

MOST = SAMPLE_RATE // 2
"""Samples that a feed faster than real time may be ahead: enough to keep the detectors busy, and few enough to keep
voice activity and transcripts in step."""


class Backpressure:
    """Samples fed and samples processed, per detector. Without a detector nothing is ever behind."""

    def __init__(self, *detectors: str) -> None:
        self._heard = dict.fromkeys(detectors, 0)
        self._fed = 0
        self._moved = asyncio.Event()

    def fed(self, samples: int) -> None:
        """The feed has reached this sample."""
        self._fed = samples

    def heard(self, detector: str, samples: int) -> None:
        """This detector has reached this sample."""
        if samples > self._heard.get(detector, samples):
            self._heard[detector] = samples
            self._moved.set()

    def lost(self, detector: str) -> None:
        """This detector no longer reports its progress: do not wait for it."""
        self._heard.pop(detector, None)
        self._moved.set()

    async def within(self, samples: int = MOST) -> None:
        """Wait until the slowest detector is at most this far behind the feed."""
        while self._heard and self._fed - min(self._heard.values()) > samples:
            self._moved.clear()
            await self._moved.wait()
