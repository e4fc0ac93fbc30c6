"""Prepares the processes of jobs: their environment variables, and the modules that they find imported.

A process shows the variables that it was started with in ``/proc/<pid>/environ``, even after it deletes them. So the
process that job processes are forked from is started with :func:`inherited` alone, and each job puts the variables of
its provider into its own memory.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from multiprocessing import forkserver, parent_process, resource_tracker
from multiprocessing.process import BaseProcess

_SYSTEM = frozenset(
    {
        *("HOME", "HOSTNAME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TZ", "USER"),
        *("TEMP", "TMP", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    }
)
_SYSTEM_PREFIXES = (
    *("LC_", "XDG_", "LD_", "DYLD_", "PYTHON", "MALLOC_", "SSL_CERT_", "RUST_"),
    *("OMP_", "OPENBLAS_", "MKL_", "ORT_", "CUDA_", "NVIDIA_VISIBLE", "COVERAGE_"),
    *("LIVEKIT_AGENTS_", "LK_DUMP_"),
)

_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "aws": ("AWS_",),
    "azure": ("AZURE_", "SPEECH_"),
    "elevenlabs": ("ELEVEN",),
    "google": ("GOOGLE_", "GEMINI_", "GCLOUD_", "CLOUDSDK_"),
    "mistralai": ("MISTRAL",),
    "nvidia": ("NVIDIA_", "RIVA_"),
    "openai": ("OPENAI_", "AZURE_"),
}
"""For plugins whose variables do not have the plugin's name."""

_INFERENCE = ("LIVEKIT_INFERENCE_",)
_LOCAL = frozenset({"moonshine", "none", "silero"})


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are unrelated to the relay's configuration."""
    return {
        name: value
        for name, value in environ.items()
        if name.upper() in _SYSTEM or name.upper().startswith(_SYSTEM_PREFIXES)
    }


def for_provider(provider: str, environ: Mapping[str, str], *, also: Iterable[str] = ()) -> dict[str, str]:
    """The variables that a provider's plugin reads, by its prefix; and those that ``also`` names.

    LiveKit Inference reads the key of the LiveKit project where it has none of its own.
    """
    named = {name: environ[name] for name in also if name in environ}
    if provider in _LOCAL:
        return named
    if provider == "livekit":
        found = _with_prefix(_INFERENCE, environ)
        own_key = {"LIVEKIT_INFERENCE_API_KEY", "LIVEKIT_INFERENCE_API_SECRET"} <= found.keys()
        project = () if own_key else ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
        return found | {name: environ[name] for name in project if name in environ} | named
    prefixes = _PREFIXES.get(provider, (provider.upper().replace("-", "_") + "_",))
    return _with_prefix(prefixes, environ) | named


def keep_inherited(environ: MutableMapping[str, str]) -> None:
    """Remove from this process's environment what its child processes must not have."""
    for name in environ.keys() - inherited(environ).keys():
        del environ[name]


def _with_prefix(prefixes: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.upper().startswith(prefixes)}


FRAMEWORK = ("livekit.agents.ipc._preload", "livekit.agents.ipc._preload_freeze")
"""The modules that AgentServer itself preloads, the freeze last (livekit-agents 1.8.9, AgentServer.run). Private names:
without them a first job takes up to a second longer, no more."""

_KILLED_WITHIN_S = 1.0

_BEGIN = "relay.capture.worker.preload_begin"
_WARM_UP = "relay.capture.worker.warm_up"


def begin_preload(modules: Sequence[str], *, local_inference: bool) -> None:
    """Begin to import ``modules`` in the fork server, which inherits this process's current environment.

    Call it first of all, so that both processes import at the same time. Cheap; Linux only, elsewhere it does nothing.

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


def job_processes() -> list[BaseProcess]:
    """The job processes of this one."""
    return [child for child in multiprocessing.active_children() if child.name == "job_proc"]


def end_at_once() -> None:
    """Kill the fork server and all job processes, for a start that has failed: it would end only after its imports."""
    # a private name, checked by tests/unit/test_livekit_registration.py
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # noqa: SLF001
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    jobs = job_processes()
    for job in jobs:
        job.kill()
    for job in jobs:
        job.join(_KILLED_WITHIN_S)


def preloaded(modules: Sequence[str]) -> list[str]:
    """All that the fork server imports, in order."""
    first, *last = FRAMEWORK
    return [_BEGIN, *modules, first, _WARM_UP, *last]


def end_after_service(grace_s: float) -> None:
    """End this process at most so many seconds after the service's process, however that one ended.

    If the service is killed, LiveKit ends the job in order, and may then fail to close the connection to it: that
    leaves a thread that the process would wait for without end (livekit-agents 1.8.9, ``proc_main``).
    """
    service = parent_process()
    if service is None:
        return

    def wait() -> None:
        service.join()
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=wait, name="end_after_service", daemon=True).start()
