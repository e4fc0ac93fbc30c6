"""Swallows and logs exceptions, so that an error of the relay stops neither LiveKit's pipeline nor an agent."""

import functools
import logging
import traceback
from collections.abc import Callable
from typing import ParamSpec

log = logging.getLogger(__name__)

P = ParamSpec("P")

MAX_FAILURES = 100
"""For a guard in an agent's process: a callback that fails thirty times a second also costs time."""


class ErrorGuard:
    """Wraps callbacks so that their exceptions reach no caller.

    LiveKit's event emitter lets a TypeError through: raised in a listener it permanently ends the session's speech
    recognition or voice activity task, or propagates from ``AgentSession.aclose``. Exceptions are counted in
    ``failures``. With ``max_failures`` each callback is logged once, because the log is an agent's, and after that many
    failures no callback runs any more.
    """

    def __init__(self, *, max_failures: int | None = None) -> None:
        self.failures = 0
        self._max = max_failures
        self._logged: set[str] = set()

    def __call__(self, callback: Callable[P, object]) -> Callable[P, None]:
        @functools.wraps(callback)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            if self._max is not None and self.failures >= self._max:
                return
            try:
                callback(*args, **kwargs)
            except Exception as error:
                self.failures += 1
                self._log(getattr(callback, "__qualname__", type(callback).__name__), error)

        return guarded

    def _log(self, name: str, error: Exception) -> None:
        if self._max is None or name not in self._logged:
            self._logged.add(name)
            log.error("speech-relay: %s failed (%s); everything else goes on", name, place_of(error))
        if self.failures == self._max:
            log.error("speech-relay failed %d times in this session and leaves it alone from now on", self._max)


def place_of(error: BaseException) -> str:
    """The error's type and the line that raised it. Its message is left out: it may quote a transcript."""
    stack = traceback.extract_tb(error.__traceback__)
    at = f" at {stack[-1].filename.rpartition('/')[2]}:{stack[-1].lineno}" if stack else ""
    return type(error).__name__ + at
