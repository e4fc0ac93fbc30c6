"""Ctrl-C and SIGTERM for commands that end in order. All others end at once, as ``relay.__main__`` arranges."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def calling_on_signal(call: Callable[[], object]) -> Iterator[None]:
    """Within the block a signal has ``call`` called on the running event loop."""
    loop = asyncio.get_running_loop()

    def handle(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)

    # Not the loop's own add_signal_handler: a loop that is closed restores Python's handlers, not those before.
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def cancelled_on_signal(work: Coroutine[Any, Any, T]) -> T:
    """Run it, and cancel it on a signal: once it has put its things in order, ``KeyboardInterrupt`` is raised."""
    task = asyncio.ensure_future(work)
    with calling_on_signal(task.cancel):
        try:
            return await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
