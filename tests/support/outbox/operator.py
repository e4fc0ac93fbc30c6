"""An operator's folder: a configuration, a log, and the commands."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.cli import SECRET, Done, speech_relay

NOWHERE = "http://127.0.0.1:9/"


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
        """Run a command to its end. What serves it may run in this process, too."""
        return await asyncio.to_thread(
            speech_relay, *arguments, cwd=self.path, SPEECH_RELAY_CONFIG=str(self.path / "config.yaml")
        )

    async def json(self, *arguments: str, code: int = 0) -> Any:
        """The document that a command writes with ``--json``."""
        done = await self.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (code, "")
        return json.loads(done.stdout)
