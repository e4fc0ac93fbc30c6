"""Logs a problem that affects many tracks at once only once."""

import asyncio
import logging
from collections.abc import Callable

TOGETHER_S = 10.0
"""Equal messages within this many seconds are the same problem."""

log = logging.getLogger(__name__)

Later = Callable[[float, Callable[[], None]], object]
"""Calls a function after this many seconds."""


class Complaints:
    """Deduplicates warnings about the streams of one process. Repeated messages are counted and reported when the first
    is ``TOGETHER_S`` old: a wrong key in a room of fifty is two lines, not fifty."""

    def __init__(self, later: Later | None = None) -> None:
        self._later = later or (lambda delay, call: asyncio.get_running_loop().call_later(delay, call))
        self._others: dict[str, int] = {}
        """How often each message was repeated."""

    def warn(self, stream_id: str, words: str) -> None:
        """Log the message for this stream."""
        if words in self._others:
            self._others[words] += 1
            log.debug("%s", words, extra={"stream_id": stream_id})
            return
        self._others[words] = 0
        log.warning("%s", words, extra={"stream_id": stream_id})
        self._later(TOGETHER_S, lambda: self._sum_up(words))

    def _sum_up(self, words: str) -> None:
        if others := self._others.pop(words):
            log.warning("%d times more within %g s: %s", others, TOGETHER_S, words)
