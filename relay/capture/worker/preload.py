"""Starts the fork server for job processes first, so that both import in parallel."""

import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing import forkserver, resource_tracker

FRAMEWORK = ("livekit.agents.ipc._preload", "livekit.agents.ipc._preload_freeze")
"""The modules that AgentServer itself preloads, the freeze last (livekit-agents 1.8.9, AgentServer.run). Private names:
without them a first job takes up to a second longer, no more."""

_WARM_UP = "relay.capture.worker.warm_up"


def begin_preload(modules: Sequence[str], *, local_inference: bool) -> None:
    """Begin to import ``modules`` in the fork server, which inherits this process's current environment.

    Cheap; the imports run in that process. Linux only, elsewhere it does nothing.

    ``local_inference``: load the VAD of livekit-agents there too, 70 MB shared by all jobs.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE", "1" if local_inference else "0")
    forkserver.set_forkserver_preload(preloaded(modules))
    # Ctrl-C goes to all processes of a terminal. The fork server, and every job forked from it, blocks the signal: an
    # interrupted import would print a traceback. The tracker comes first because it unblocks the signal when it has
    # started.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def preloaded(modules: Sequence[str]) -> list[str]:
    """All that the fork server imports, in order."""
    first, *last = FRAMEWORK
    return [*modules, first, _WARM_UP, *last]
