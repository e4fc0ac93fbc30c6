"""Lets a process stop although its log does not answer: its server may be frozen, or the network to it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


class StoppedAtStart(Exception):
    """The process was stopped before it had started."""


class LogWaits:
    """What waits for the log, and is broken off at a stop."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._break_offs: list[Callable[[], None]] = []

    def add(self, break_off: Callable[[], None]) -> None:
        """``break_off`` makes everything fail that waits on one connection to the log."""
        self._break_offs.append(break_off)

    async def before_stop(self, step: Coroutine[Any, Any, T]) -> T:
        """The result of a step of the start, which may wait for a lock in the log.

        Raises :class:`StoppedAtStart` if the stop comes first: the log is then waited for no longer.
        """
        doing, stopping = asyncio.ensure_future(step), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            self._break_off()
            raise StoppedAtStart
        finally:
            stopping.cancel()
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)  # it may fail when it is broken off

    async def end_in_time(self, seconds: float) -> None:
        """Break off what waits so long after the stop. To be cancelled when nothing waits any more."""
        await self._stop.wait()
        await asyncio.sleep(seconds)
        logger.warning("stopping without the log: what is not written there is done again after the next start")
        self._break_off()

    def _break_off(self) -> None:
        for break_off in self._break_offs:
            break_off()
