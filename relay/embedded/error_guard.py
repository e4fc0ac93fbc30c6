"""Keeps whatever goes wrong in the relay out of the agent."""

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec

from relay.capture.health.error_guard import Guard

log = logging.getLogger(__name__)

P = ParamSpec("P")

MOST_FAILURES = 100
"""After so many nothing of the relay is called any more: what fails thirty times a second costs time as well."""


class Shield(Guard):
    """A guard that speaks up once for each callback, in somebody else's log, and gives up in the end."""

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
            # Its type alone: a message may quote a transcript.
            log.error("speech-relay: %s failed (%s); the agent goes on", name, type(error).__name__)
        if self.failures == MOST_FAILURES:
            log.error("speech-relay failed %d times in this session and leaves it alone from now on", MOST_FAILURES)
