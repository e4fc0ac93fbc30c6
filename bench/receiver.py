"""Runs the Go receiver as a child process: it ends when its standard input does."""

import asyncio
import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NoGoError(RuntimeError):
    """The receiver is a Go program, so that it is never the bottleneck."""


def built(name: str, folder: Path) -> Path:
    """Build one of the benches' Go programs into a folder."""
    binary = folder / name
    subprocess.run([_go(), "build", "-o", binary, "."], cwd=Path(__file__).parent / name, check=True)
    return binary


def _go() -> str:
    if found := shutil.which("go") or shutil.which("/usr/local/go/bin/go"):
        return found
    raise NoGoError("the benches need Go on the PATH: their receiver is a Go program")


@dataclass(frozen=True)
class Receiver:
    port: int
    pid: int

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def stats(self, name: str) -> dict[str, Any]:
        """requests, events, duplicates, disorder, seconds (first to last), p50_ms, p95_ms, p99_ms, max_ms."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats/{name}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    async def wait_for(self, name: str, events: int, *, within: float) -> dict[str, Any]:
        async with asyncio.timeout(within):
            while (stats := await asyncio.to_thread(self.stats, name))["events"] < events:
                await asyncio.sleep(0.1)
        return stats


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([built("receiver", Path(folder))], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Receiver(int(await asyncio.to_thread(process.stdout.readline)), process.pid)
        finally:
            process.stdin.close()
            process.wait(timeout=10)
