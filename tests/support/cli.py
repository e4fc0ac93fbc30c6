"""Runs the command line as a user does, isolated from this machine's configuration."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from relay.__main__ import main

ROOT = Path(__file__).parents[2]
_OURS = ("SPEECH_RELAY", "LIVEKIT_", "DEEPGRAM_", "WEBHOOK_SECRET")

SECRET = "whsec_" + "QUFB" * 11
"""Well-formed, but not valid anywhere."""


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without the relay's variables, plus these variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**clean, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **variables}


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    returncode: int
    stdout: str
    stderr: str


def speech_relay(*arguments: str, cwd: Path, given: str = "", **variables: str) -> Done:
    """Run ``speech-relay`` to its end with ``given`` on its standard input, in this process: a new one imports for a
    second."""
    # on a thread of its own, where no event loop runs and a command changes no signal handler of the tests
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_run, arguments, cwd, given, environment(**variables)).result(timeout=60)


def speech_relay_process(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own: for commands that serve, and where a test is about the process."""
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _run(arguments: tuple[str, ...], cwd: Path, given: str, variables: Mapping[str, str]) -> Done:
    out, err, code = io.StringIO(), io.StringIO(), 0
    typed = patch.multiple(
        sys, argv=["speech-relay", *arguments], stdin=io.TextIOWrapper(io.BytesIO(given.encode()), encoding="utf-8")
    )
    environ = patch.dict(os.environ, variables, clear=True)
    with chdir(cwd), _logging_kept(), redirect_stdout(out), redirect_stderr(err), typed, environ:
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0
    return Done(code, out.getvalue(), err.getvalue())


@contextmanager
def _logging_kept() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)
