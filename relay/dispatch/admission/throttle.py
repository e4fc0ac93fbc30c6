"""Limits an endpoint's requests in flight: fewer when it does not keep up, as TCP does. Pure."""

from relay.dispatch.http.outcome import Failed, Outcome

_OVERLOADED = frozenset({429, 502, 503, 504})


def overloaded(outcome: Outcome) -> bool:
    """Whether the outcome indicates overload: a timeout, 429, 502, 503 or 504."""
    return isinstance(outcome, Failed) and (outcome.stage == "timeout" or outcome.status in _OVERLOADED)


class Throttle:
    """Halves the limit on overload, and raises it by about one per round of successes, up to ``most``."""

    def __init__(self, most: int) -> None:
        self.limit = most
        """How many requests may be in flight now."""
        self.generation = 0
        """How often the limit has halved. An attempt belongs to the generation in which it began."""
        self._most = most
        self._exact = float(most)

    def record_success(self) -> None:
        """Record a successful attempt."""
        if self.limit < self._most:
            self._exact += 1 / self._exact
            self.limit = int(self._exact)

    def record_overload(self, generation: int) -> None:
        """Record an overload in an attempt of that generation. Older generations add no new information."""
        if generation == self.generation:
            self._exact = max(1.0, self._exact / 2)
            self.limit = int(self._exact)
            self.generation += 1
