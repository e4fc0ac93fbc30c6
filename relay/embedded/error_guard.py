"""Keeps the relay's errors out of the agent."""

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec

from relay.capture.health.error_guard import Guard

log = logging.getLogger(__name__)

P = ParamSpec("P")

MOST_FAILURES = 100
"""After this many errors no relay callback runs any more: one that fails thirty times a second also costs time."""


class Shield(Guard):
    """A guard that logs once per callback, because the log is the agent's, and finally gives up."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def __call__(self, callback: Callable[P, object]) -> Callable[P, None]:
        @functools.wraps(callback)
        def shielded(*args: P.args, **kwargs: P.kwargs) -> None:
            if self.failures >= MOST_FAILURES:
                return
            try:
                callback(*args, **kwargs)
            except Exception as error:
                self.failures += 1
                self._say(getattr(callback, "__qualname__", type(callback).__name__), error)

        return shielded

    def _say(self, name: str, error: Exception) -> None:
        if name not in self._said:
            self._said.add(name)
            # Only the type: a message may quote a transcript.
            log.error("speech-relay: %s failed (%s); the agent goes on", name, type(error).__name__)
        if self.failures == MOST_FAILURES:
            log.error("speech-relay failed %d times in this session and leaves it alone from now on", MOST_FAILURES)
