"""One trouble that befalls many tracks at once is told once."""

import asyncio
import logging
from collections.abc import Callable

TOGETHER_S = 10.0
"""Within how many seconds the same words are the same trouble."""

log = logging.getLogger(__name__)

Later = Callable[[float, Callable[[], None]], object]
"""Calls something in so many seconds."""


class Complaints:
    """Warnings about the streams of one process. What is said again in the same words is counted, and told of when the
    first is ``TOGETHER_S`` old: a wrong key in a room of fifty is two lines, not fifty."""

    def __init__(self, later: Later | None = None) -> None:
        self._later = later or (lambda delay, call: asyncio.get_running_loop().call_later(delay, call))
        self._others: dict[str, int] = {}
        """How many more times the same was said, by what was said."""

    def warn(self, stream_id: str, words: str) -> None:
        """Say it of this stream."""
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
