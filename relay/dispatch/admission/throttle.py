"""How many requests an endpoint may have in flight: fewer when it does not keep up, as TCP does it. Pure."""

from relay.dispatch.http.outcome import Failed, Outcome

_OVERLOADED = frozenset({429, 502, 503, 504})


def overloaded(outcome: Outcome) -> bool:
    """Whether it is a sign of too much at once: a timeout, 429, 502, 503 or 504."""
    return isinstance(outcome, Failed) and (outcome.stage == "timeout" or outcome.status in _OVERLOADED)


class Throttle:
    """Halves where it is too much, and grows by about one for each round of successes, up to ``most``."""

    def __init__(self, most: int) -> None:
        self.limit = most
        """How many may be in flight now."""
        self.generation = 0
        """How often it has halved. An attempt belongs to the generation that it began in."""
        self._most = most
        self._exact = float(most)

    def eased(self) -> None:
        """An attempt has succeeded."""
        if self.limit < self._most:
            self._exact += 1 / self._exact
            self.limit = int(self._exact)

    def strained(self, generation: int) -> None:
        """An attempt of that generation was too much. Those of an older one tell what is known already."""
        if generation == self.generation:
            self._exact = max(1.0, self._exact / 2)
            self.limit = int(self._exact)
            self.generation += 1
