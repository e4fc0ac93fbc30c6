"""A proxy before PostgreSQL's socket, in which the network can be made slow, silent or broken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Everything passes at first."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._passing = asyncio.Event()
        self._passing.set()
        self._refusing = False
        self._latency_s = 0.0
        self._silent_at = b""
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self, folder: Path) -> AsyncIterator[None]:
        listener = await asyncio.start_unix_server(self._accept, folder / SOCKET)
        (folder / SOCKET).chmod(0o777)
        try:
            yield
        finally:
            listener.close()
            self.partition()

    def slow(self, seconds: float) -> None:
        """Each packet takes this much longer."""
        self._latency_s = seconds

    def silence(self) -> None:
        """Connections stay open, and nothing comes through: as on a half-open one."""
        self._passing.clear()

    def silence_at(self, text: bytes) -> None:
        """As ``silence``, once this is to pass."""
        self._silent_at = text

    def partition(self) -> None:
        """Break off every connection, and refuse new ones."""
        self._refusing = True
        for writer in self._writers:
            writer.transport.abort()
        self._passing.set()

    def heal(self) -> None:
        """Everything passes again."""
        self._refusing, self._latency_s = False, 0.0
        self._passing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_unix_connection(self._server / SOCKET)
        except OSError:  # the server is down
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        with suppress(OSError):
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        self._writers -= {writer, back}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if self._silent_at and self._silent_at in data:
                    self.silence()
                await asyncio.sleep(self._latency_s)
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
