"""Ctrl-C and SIGTERM for commands that end in order. Others end at once, by ``relay.__main__``."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def calling_on_signal(call: Callable[[], object]) -> Iterator[None]:
    """Within the block, a signal calls ``call`` on the running event loop; Ctrl-C after it ends the process at once.

    A second SIGTERM does not: supervisors repeat it, and the log would be left with open streams.
    """
    loop, at_once = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)

    def handle(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, at_once)
        loop.call_soon_threadsafe(call)

    # Not the loop's own add_signal_handler: closing a loop restores Python's handlers, not the previous ones.
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def until_signal(work: Coroutine[Any, Any, None] | None = None) -> None:
    """Do it until Ctrl-C or SIGTERM; without work, wait for these."""
    doing = asyncio.ensure_future(work or asyncio.Event().wait())
    with calling_on_signal(doing.cancel), suppress(asyncio.CancelledError):
        await doing


async def cancelled_on_signal(work: Coroutine[Any, Any, T]) -> T:
    """Run it, and cancel it on a signal: ``KeyboardInterrupt`` is raised after its cleanup."""
    task = asyncio.ensure_future(work)
    with calling_on_signal(task.cancel):
        try:
            return await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
