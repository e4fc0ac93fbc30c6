"""Imports in the fork server what the configuration names, once the service has read it: see ``begin_preload``.

The service writes the modules, a line each, into a pipe. Where it ends before that, or the pipe cannot be opened, there
are none, and jobs import for themselves.
"""

import contextlib
import importlib
import os

from relay.capture.worker.job_processes import CONFIGURED, LOCAL_INFERENCE

if place := os.environ.pop(CONFIGURED, None):
    with contextlib.suppress(OSError), open(place, encoding="utf-8") as pipe:  # noqa: PTH123 - no path of a file
        inference, *modules = pipe.read().splitlines() or ["0"]
        os.environ.setdefault(LOCAL_INFERENCE, inference)
        for module in modules:
            with contextlib.suppress(ImportError):  # the service says what is not installed
                importlib.import_module(module)
