"""Logs a problem once that affects many tracks at once, or every attempt for a while."""

import asyncio
import logging
import time
from collections.abc import Callable

TOGETHER_S = 10.0
"""Equal messages within this many seconds are the same problem."""
REMIND_S = 60.0
"""Between two lines about the same reason while an outage lasts."""

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


class Outage:
    """Logs that what is repeated fails: each reason at once and then once a minute, and that it works again."""

    def __init__(
        self,
        logger: logging.Logger,
        what: str,
        *,
        level: int = logging.WARNING,
        calm_s: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``what`` begins each line: ``the log could not be pruned``.

        ``calm_s``: it is over once nothing has failed for so long, where some attempts succeed during an outage.
        """
        self._logger, self._what, self._level, self._calm_s, self._now = logger, what, level, calm_s, now
        self._began: float | None = None
        self._failed_at = 0.0
        self._said: dict[str, float] = {}
        """When each reason was logged, if less than ``REMIND_S`` ago."""

    def failed(self, reason: object) -> None:
        """An attempt has failed."""
        now, words = self._now(), str(reason)
        self._began, self._failed_at = now if self._began is None else self._began, now
        self._said = {each: at for each, at in self._said.items() if now - at < REMIND_S}
        if words not in self._said:
            self._said[words] = now
            self._logger.log(self._level, "%s: %s", self._what, words)

    def over(self) -> None:
        """An attempt has succeeded."""
        if self._began is not None and (now := self._now()) - self._failed_at >= self._calm_s:
            lasted = (self._failed_at if self._calm_s else now) - self._began
            self._logger.info("over after %.0f s: %s", lasted, self._what)
            self._began = None
            self._said.clear()
