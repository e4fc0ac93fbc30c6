"""Computes voice activity detection's confidence in a segment."""

from livekit.agents import vad


class Probability:
    """Peak and mean over the inferences of a segment, which only INFERENCE_DONE events carry.

    The silence that a detector waits for before it ends a segment does not count.
    """

    def __init__(self) -> None:
        self._speaking = False
        self._peak = 0.0
        self._total = 0.0
        self._count = 0
        self._pending: list[float] = []

    @property
    def peak(self) -> float | None:
        return round(self._peak, 4) if self._count else None

    @property
    def mean(self) -> float | None:
        return round(self._total / self._count, 4) if self._count else None

    def heard(self, event: vad.VADEvent) -> None:
        """Take an inference. Its ``raw_accumulated_*`` precede it: they classify the earlier inferences."""
        if event.speaking:
            if event.raw_accumulated_silence == 0:
                self._settle()
        elif event.raw_accumulated_speech == 0:
            self._pending.clear()
        self._pending.append(event.probability)

    def started(self) -> None:
        """The inferences that led to this start are the segment's first ones."""
        self._peak = self._total = 0.0
        self._count = 0
        self._settle()

    def _settle(self) -> None:
        self._total += sum(self._pending)
        self._count += len(self._pending)
        self._peak = max([self._peak, *self._pending])
        self._pending.clear()
