"""Bugs in callbacks, made visible: the event loop alone would only log them and go on."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


class Guard:
    """Carries the first exception of any guarded callback to whoever watches."""

    def __init__(self) -> None:
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(self, callback: Callable[P, None]) -> Callable[P, None]:
        """The same callback, with its exceptions carried away."""

        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                callback(*args, **kwargs)
            except Exception as bug:
                if not self._broken.done():
                    self._broken.set_exception(bug)

        return guarded

    async def watch(self) -> None:
        """Raise that exception, whenever it comes."""
        await self._broken
