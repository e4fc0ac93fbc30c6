"""What hangs and is not dead: a database that takes connections and answers nothing, a dispatcher that is frozen."""

import asyncio
import json
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import psycopg
import pytest
import yaml

from relay.cli.probes import probe_outbox
from relay.clock import SystemClock
from relay.config.models import OutboxConfig
from relay.errors import OutboxError
from relay.outbox.opening import exposures, shown
from relay.outbox.operator.access import open_log
from relay.outbox.outbox import Outbox
from relay.outbox.postgres import database, session
from relay.outbox.postgres.functions import LOG
from tests.support.builders import new_stream, process, run
from tests.support.cli import environment, speech_relay
from tests.support.dispatch.receiver import Answer, Received, Receiver
from tests.support.outbox.outbox_store import migrated
from tests.support.outbox.postgres import PostgresServer
from tests.torture.proxy import Proxy
from tests.torture.receivers import until

GRACE_S = 1
ENDS_WITHIN_S = 60.0
"""The grace, what comes on top of it, and the time that a busy machine takes."""
_CONFIG = """\
outbox: {{url: "{url}"}}
endpoints: [{{name: crm, url: "{receiver}", signing: none, events: ["*"], timeout: 60s}}]
api: {{listen: "127.0.0.1:{port}"}}
shutdown: {{grace: {grace}s}}
"""
_READY = "SELECT COUNT(*) FROM processes WHERE role = 'dispatch' AND ready_at IS NOT NULL AND waits_for = ''"


class Silenced:
    """A database of its own behind a proxy."""

    def __init__(self, server: PostgresServer, proxy: Proxy, folder: Path) -> None:
        self.proxy, self._server, self.database = proxy, server, server.create(template=migrated(server))
        self.direct = server.url(self.database)
        self.url = self.direct.replace(str(server.folder), str(folder))

    async def ready(self, count: int) -> None:
        """Wait until so many dispatchers are ready."""
        assert await until(lambda: self._server.execute(_READY, database=self.database) == [(count,)], within=90)


@pytest.fixture
async def silenced(postgres_server: PostgresServer) -> AsyncIterator[Silenced]:
    proxy = Proxy(postgres_server.folder)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # short: a socket's path has 107 bytes
        async with proxy.listening(Path(folder)):
            yield Silenced(postgres_server, proxy, Path(folder))


@asynccontextmanager
async def dispatching(
    silenced: Silenced, receiver: Receiver, folder: Path, *, count: int = 1
) -> AsyncIterator[asyncio.subprocess.Process]:
    """``speech-relay dispatch``, the ``count``-th one, ready; killed at the end of the block if it still runs."""
    folder = folder / str(count)
    folder.mkdir()
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
        await silenced.ready(count)
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
    async with dispatching(silenced, receiver, tmp_path) as one:
        log = await producer.open_stream(new_stream())
        await log.append(run(1, 1, 2))
        await receiver.wait(1)
        silenced.proxy.silence()
        answers.set()  # its result cannot be settled
        assert await ended(one) == 0, (tmp_path / "1" / "said").read_text()
    await producer.aclose()


@pytest.mark.parametrize("has_tables", [False, True])
async def test_sigterm_ends_a_process_that_waits_for_a_lock_of_the_log_to_start(
    has_tables: bool, postgres_server: PostgresServer, receiver: Receiver, tmp_path: Path
) -> None:
    """Such as while another process upgrades the tables: that lock is waited for up to a minute."""
    database = postgres_server.create(template=migrated(postgres_server) if has_tables else "template1")
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
    config = _CONFIG.format(url=postgres_server.url(database), receiver=receiver.url, port=0, grace=GRACE_S)
    (tmp_path / "config.yaml").write_text(config)
    with psycopg.connect(postgres_server.url(database)) as upgrading, (tmp_path / "said").open("wb") as said:
        upgrading.execute(f"SELECT pg_advisory_xact_lock({LOG})")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", "dispatch"), cwd=tmp_path, env=environment(), stdout=said, stderr=said
        )
        try:
            assert await until(lambda: postgres_server.execute(waiting) == [(1,)], within=90)
            process.terminate()
            async with asyncio.timeout(30):  # while the lock is still held
                assert await process.wait() == 0, (tmp_path / "said").read_text()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert "the log is away" not in (tmp_path / "said").read_text(), "it was not to wait for the lock's own limit"


async def test_an_operator_s_access_that_is_cancelled_as_it_opens_leaves_no_thread(
    postgres_server: PostgresServer,
) -> None:
    database = postgres_server.create(template="template1")
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"

    async def look() -> None:
        async with open_log(postgres_server.url(database), SystemClock()):
            pass

    with psycopg.connect(postgres_server.url(database)) as upgrading:
        upgrading.execute(f"SELECT pg_advisory_xact_lock({LOG})")
        looking = asyncio.create_task(look())
        assert await until(lambda: postgres_server.execute(sessions) == [(1,)], within=90)
        looking.cancel()
        async with asyncio.timeout(30):  # while the lock is still held: its own limit is a minute
            await asyncio.wait([looking])
            await asyncio.get_running_loop().shutdown_default_executor()  # as the end of the process does
    assert looking.cancelled()


async def test_a_process_that_starts_beside_a_silent_database_says_so(
    silenced: Silenced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "OPENS_WITHIN_S", 0.5)
    silenced.proxy.silence_at(b"alembic_version")
    with pytest.raises(OutboxError, match="the server takes connections and gives no answer"):
        async with asyncio.timeout(ENDS_WITHIN_S):
            await Outbox.open(silenced.url, name="relay", clock=SystemClock())


@pytest.mark.parametrize("silent_at", [b"transaction_read_only", b"alembic_version", b"pg_logical_emit_message"])
async def test_check_gives_up_on_a_server_that_takes_the_connection_and_says_nothing_more(
    silent_at: bytes, silenced: Silenced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "ANSWERS_WITHIN_S", 1.0)
    silenced.proxy.silence_at(silent_at)
    async with asyncio.timeout(ENDS_WITHIN_S):
        finding = await asyncio.to_thread(probe_outbox, OutboxConfig(url=silenced.url))
        rights = await asyncio.to_thread(exposures, silenced.url)
    assert finding.status == "failed"
    assert finding.detail.startswith(f"outbox {shown(silenced.url)}: the server takes connections and gives no answer")
    assert [each.startswith("the rights of other roles cannot be read: ") for each in rights] == [True]


def test_check_says_what_to_do_about_an_address_that_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        finding = probe_outbox(OutboxConfig(url=f"postgresql://relay@127.0.0.1:{listener.getsockname()[1]}/relay"))
    assert (finding.status, "or correct outbox.url" in finding.detail) == ("failed", True), finding.detail


async def test_status_names_a_frozen_dispatcher_that_keeps_events_from_the_others(
    silenced: Silenced, receiver: Receiver, tmp_path: Path
) -> None:
    clock = SystemClock()

    async def status() -> tuple[int, str]:
        done = await asyncio.to_thread(speech_relay, "status", "--json", cwd=tmp_path / "2")
        return done.returncode, json.loads(done.stdout)["waits_for"] or ""

    receiver.answer = lambda _: Answer(after=60)
    producer = await Outbox.open(silenced.direct, name="producer", clock=clock)
    await producer.note_process(process("ears", seen_at=clock.now_ms() + 600_000))
    async with (
        dispatching(silenced, receiver, tmp_path) as hung,
        dispatching(silenced, receiver, tmp_path, count=2),
    ):
        for number in range(1, 9):  # half of them are the first one's
            await (await producer.open_stream(new_stream(number))).append(run(number, 1, 2))
        await receiver.wait(8)
        assert await status() == (0, "")
        assert hung.returncode is None, (tmp_path / "1" / "said").read_text()
        hung.send_signal(signal.SIGSTOP)
        assert await until(partial(holds_up, tmp_path / "2", hung.pid), within=ENDS_WITHIN_S)
        code, told = await status()
        assert code == 1
        assert f"/{hung.pid} hangs, or its machine is lost" in told
    await producer.aclose()


async def holds_up(folder: Path, pid: int) -> bool:
    """Whether the API of the process in this folder says that the one with this id keeps lanes from others."""
    address = yaml.safe_load((folder / "config.yaml").read_text())["api"]["listen"]
    async with httpx.AsyncClient(timeout=ENDS_WITHIN_S) as client:
        found = (await client.get(f"http://{address}/v1/status")).json()
    return any(each["pid"] == pid and each["lanes_held_up"] for each in found["processes"])
