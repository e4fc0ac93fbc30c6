"""Surfaces bugs in callbacks: the event loop alone would only log them and continue."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


class CallbackGuard:
    """Passes the first exception of any guarded callback to the watching task."""

    def __init__(self) -> None:
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(self, callback: Callable[P, None]) -> Callable[P, None]:
        """Return the callback, wrapped to capture its exceptions."""

        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                callback(*args, **kwargs)
            except Exception as bug:
                if not self._broken.done():
                    self._broken.set_exception(bug)

        return guarded

    async def watch(self) -> None:
        """Raise that exception when it occurs."""
        await self._broken
