"""An operator's folder: a configuration, a log, and the commands."""

import asyncio
import io
import json
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from relay.__main__ import main
from tests.support.cli import SECRET, environment

NOWHERE = "http://127.0.0.1:9/"


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    returncode: int
    stdout: str
    stderr: str


class Folder:
    """The endpoints are crm and bi, with more settings of their own where given.

    With ``configured`` the folder already has its config.yaml.
    """

    def __init__(self, path: Path, *, configured: bool = False) -> None:
        self.path = path
        if not configured:
            self.configure(crm={}, bi={})

    def configure(self, **endpoints: Mapping[str, Any]) -> None:
        configured = [{"name": name, "url": NOWHERE, "secret": SECRET, **more} for name, more in endpoints.items()]
        log = {"url": f"sqlite:///{self.path}/relay.db"}
        (self.path / "config.yaml").write_text(json.dumps({"outbox": log, "endpoints": configured}))

    async def run(self, *arguments: str) -> Done:
        """Run a command to its end, on a thread: a new process takes a second to start."""
        return await asyncio.to_thread(self._run, arguments)

    def _run(self, arguments: tuple[str, ...]) -> Done:
        variables = environment(SPEECH_RELAY_CONFIG=str(self.path / "config.yaml"))
        out, err, code = io.StringIO(), io.StringIO(), 0
        argv, environ = (
            patch.object(sys, "argv", ["speech-relay", *arguments]),
            patch.dict(os.environ, variables, clear=True),
        )
        with redirect_stdout(out), redirect_stderr(err), argv, environ:
            try:
                main()
            except SystemExit as exit_:
                code = exit_.code if isinstance(exit_.code, int) else 0
        return Done(code, out.getvalue(), err.getvalue())

    async def json(self, *arguments: str, code: int = 0) -> Any:
        """The document that a command writes with ``--json``."""
        done = await self.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (code, "")
        return json.loads(done.stdout)
