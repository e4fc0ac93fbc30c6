"""Keeps errors of the relay's callbacks from stopping LiveKit's pipeline."""

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec

log = logging.getLogger(__name__)

P = ParamSpec("P")


class Guard:
    """Wraps callbacks so that their exceptions do not reach LiveKit.

    LiveKit's event emitter lets a TypeError through: raised in a listener it permanently ends the session's speech
    recognition or voice activity task, or propagates from ``AgentSession.aclose``. An exception is logged by its type
    alone, because a message may quote a transcript, and counted in ``failures``.
    """

    def __init__(self) -> None:
        self.failures = 0

    def __call__(self, callback: Callable[P, object]) -> Callable[P, None]:
        @functools.wraps(callback)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                callback(*args, **kwargs)
            except Exception as error:
                self.failures += 1
                name = getattr(callback, "__qualname__", type(callback).__name__)
                log.error("%s failed (%s); listening goes on without it", name, type(error).__name__)  # noqa: TRY400 - a traceback would quote the message

        return guarded
