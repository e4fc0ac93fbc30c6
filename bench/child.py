"""A process of a bench, controlled by lines: it prints ``ready``, and starts at a line on its standard input."""

import asyncio
import sys
from types import TracebackType
from typing import Self


class Child:
    """``python -m MODULE ARGUMENTS…``. Entering it waits until it is ready; leaving it waits for its end."""

    def __init__(self, module: str, *arguments: object) -> None:
        self._command = [sys.executable, "-m", module, *map(str, arguments)]
        self._started: asyncio.subprocess.Process | None = None

    @property
    def _process(self) -> asyncio.subprocess.Process:
        assert self._started is not None
        return self._started

    async def __aenter__(self) -> Self:
        self._started = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        await self.line()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        await self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def go(self) -> None:
        """Send the next line."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        await self._process.stdin.drain()

    async def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    def kill(self) -> None:
        """End it early, if it runs."""
        if self._process.returncode is None:
            self._process.kill()
