"""Starts the process that job processes are forked from before anything else, so that both import at the same time."""

import os
import sys
from collections.abc import Sequence
from multiprocessing import forkserver

FRAMEWORK = ("livekit.agents.ipc._preload", "livekit.agents.ipc._preload_freeze")
"""What AgentServer itself preloads, the freeze last (livekit-agents 1.8.9, AgentServer.run). Private names: without
them a first job takes up to a second longer, no more."""


def begin_preload(modules: Sequence[str], *, local_inference: bool) -> None:
    """Begin to import ``modules`` in the fork server. Cheap; it goes on in that process. Linux only, elsewhere nothing.

    ``local_inference``: load the VAD that comes with livekit-agents there too, 70 MB shared by all jobs.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE", "1" if local_inference else "0")
    forkserver.set_forkserver_preload([*modules, *FRAMEWORK])
    forkserver.ensure_running()
