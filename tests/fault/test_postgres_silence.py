"""A database that takes connections and answers nothing: frozen, or behind a network that drops everything."""

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.clock import SystemClock
from relay.errors import OutboxError
from relay.outbox.outbox import Outbox
from relay.outbox.postgres import database
from tests.support.builders import new_stream, run
from tests.support.cli import environment
from tests.support.dispatch.receiver import Answer, Received, Receiver
from tests.support.outbox.outbox_store import migrated, until
from tests.support.outbox.postgres import PostgresServer
from tests.torture.proxy import Proxy

GRACE_S = 1
ENDS_WITHIN_S = 30.0
"""The grace, what comes on top of it, and the time that a busy machine takes."""
_CONFIG = """\
outbox: {{url: "{url}"}}
endpoints: [{{name: crm, url: "{receiver}", signing: none, events: ["*"]}}]
admin: {{listen: "127.0.0.1:{port}"}}
shutdown: {{grace: {grace}s}}
"""
_READY = "SELECT COUNT(*) FROM processes WHERE ready_at IS NOT NULL"


class Silenced:
    """A database of its own behind a proxy."""

    def __init__(self, server: PostgresServer, proxy: Proxy, folder: Path) -> None:
        self.proxy, self._server, self.database = proxy, server, server.create(template=migrated(server))
        self.direct = server.url(self.database)
        self.url = self.direct.replace(str(server.folder), str(folder))

    async def ready(self) -> None:
        """Wait until a process is ready."""
        await until(lambda: self._server.execute(_READY, database=self.database) == [(1,)])


@pytest.fixture
async def silenced(postgres_server: PostgresServer) -> AsyncIterator[Silenced]:
    proxy = Proxy(postgres_server.folder)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # short: a socket's path has 107 bytes
        async with proxy.listening(Path(folder)):
            yield Silenced(postgres_server, proxy, Path(folder))


@asynccontextmanager
async def dispatching(
    silenced: Silenced, receiver: Receiver, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """``speech-relay dispatch``, ready; killed at the end of the block if it still runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = _CONFIG.format(url=silenced.url, receiver=receiver.url, port=port, grace=GRACE_S)
    (folder / "config.yaml").write_text(config)
    with (folder / "said").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", "dispatch"), cwd=folder, env=environment(), stdout=said, stderr=said
        )
    try:
        await silenced.ready()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process) -> int:
    """Its exit code after SIGTERM."""
    process.terminate()
    async with asyncio.timeout(ENDS_WITHIN_S):
        return await process.wait()


async def test_a_dispatcher_ends_although_its_database_answers_nothing(
    silenced: Silenced, receiver: Receiver, tmp_path: Path
) -> None:
    answers = asyncio.Event()

    async def answer(_: Received) -> Answer:
        await answers.wait()
        return Answer(204)

    receiver.answer = answer
    producer = await Outbox.open(silenced.direct, name="producer", clock=SystemClock())
    async with dispatching(silenced, receiver, tmp_path) as process:
        log = await producer.open_stream(new_stream())
        await log.append(run(1, 1, 2))
        await receiver.wait(1)
        silenced.proxy.silence()
        answers.set()  # its result cannot be settled
        assert await ended(process) == 0, (tmp_path / "said").read_text()
    await producer.aclose()


async def test_a_process_that_starts_beside_a_silent_database_says_so(
    silenced: Silenced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "OPENS_WITHIN_S", 0.5)
    silenced.proxy.silence_at(b"alembic_version")
    with pytest.raises(OutboxError, match="the server takes connections and gives no answer"):
        async with asyncio.timeout(ENDS_WITHIN_S):
            await Outbox.open(silenced.url, name="relay", clock=SystemClock())
