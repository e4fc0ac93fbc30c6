"""Runs inference on threads that may hang: a hung thread is abandoned and replaced.

All streams of a process share one thread, and a thread cannot be killed from outside.
"""

import asyncio
import atexit
import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

LOOK_EVERY_S = 0.5
"""The check interval for a busy thread. Each check counts for this long, however late it runs: where the process was
frozen or its event loop was blocked, no answer could have arrived."""
MOST_HANGING = 3
"""The maximum number of hung threads. Each holds memory, and maybe a core, until the process ends."""
_EXIT_WAIT_S = 2.0
"""How long the end of the process waits for a job that is running. Much more than a job takes."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class Hung(RuntimeError):
    """The thread for this job hangs."""


class Runner:
    """Runs jobs one after the other on its own thread, for one event loop.

    Once no answer has come for ``limit_s`` although one is due, it is permanently ``hung``: waiting callers and all
    later ones get Hung, and a late answer is discarded.
    """

    def __init__(self, name: str, limit_s: float) -> None:
        self.hung = False
        self._limit_s = limit_s
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._unanswered_s = 0.0
        self._looking: asyncio.TimerHandle | None = None
        # A daemon: the process must be able to exit while it hangs.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def run(self, do: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``do`` on the thread and return its result. Raises its exception, or Hung."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if self.hung:
            answer.set_exception(self._hanging())
            return answer
        self._waiting.add(answer)
        self.post(partial(self._do, do, answer, loop))
        if self._looking is None:
            self._looking = loop.call_later(LOOK_EVERY_S, self._look)
        return answer

    def post(self, do: Callable[[], None]) -> None:
        """Run it after all earlier jobs, even behind a hung one."""
        self._todo.put(do)
        if self._thread.ident is None:
            atexit.register(self._finish)
            self._thread.start()

    def close(self) -> None:
        """Answer no more jobs, and end the thread after the queued ones."""
        if self._looking is not None:
            self._looking.cancel()
        for answer in self._waiting:
            answer.cancel()
        self._todo.put(None)

    @property
    def hangs(self) -> bool:
        """Whether it has hung, and its thread has not recovered."""
        return self.hung and self._thread.is_alive()

    def _finish(self) -> None:
        """At exit: an engine that still computes while its library is unloaded prints errors, or crashes."""
        if self.hung:
            return
        self._todo.put(None)
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C: wait no longer
            self._thread.join(_EXIT_WAIT_S)

    def _work(self) -> None:
        while (do := self._todo.get()) is not None:
            try:
                do()
            except Exception:
                log.exception("a task without a waiting caller failed on the thread of %s", self._thread.name)
            if self.hung and self._todo.empty():
                break
        atexit.unregister(self._finish)

    def _do(self, do: Callable[[], T], answer: asyncio.Future[T], loop: asyncio.AbstractEventLoop) -> None:
        settle: Callable[[], object] = answer.cancel
        if not answer.done():  # the caller no longer waits
            try:
                settle = partial(answer.set_result, do())
            except Exception as error:
                settle = partial(answer.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: no caller waits
            loop.call_soon_threadsafe(self._answered, answer, settle)

    def _answered(self, answer: asyncio.Future[T], settle: Callable[[], object]) -> None:
        self._waiting.discard(answer)
        self._unanswered_s = 0.0
        if not answer.done():
            settle()

    def _look(self) -> None:
        self._looking = None
        if not self._waiting:
            return
        self._unanswered_s += LOOK_EVERY_S
        if self._unanswered_s < self._limit_s:
            self._looking = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
            return
        log.warning("the thread of %s hangs: it is abandoned", self._thread.name)
        self.hung = True
        waiting, self._waiting = self._waiting, set()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(self._hanging())

    def _hanging(self) -> Hung:
        return Hung(f"the thread of {self._thread.name} hangs, it has answered nothing for {self._limit_s:g} s")


class Runners:
    """The current runner. At most ``MOST_HANGING`` are abandoned; then all jobs fail until one of them recovers."""

    def __init__(self, name: str, limit_s: float) -> None:
        self._name, self._limit_s = name, limit_s
        self._hung: list[Runner] = []
        self._current = Runner(name, limit_s)

    @property
    def current(self) -> Runner:
        if self._current.hung:
            self._replace()
        return self._current

    def close(self) -> None:
        self._current.close()

    def _replace(self) -> None:
        hanging = [runner for runner in (*self._hung, self._current) if runner.hangs]
        if len(hanging) < MOST_HANGING:
            self._hung, self._current = hanging, Runner(self._name, self._limit_s)
