"""A copy that is killed at any moment is continued by the next one, and is the original at the end."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.test_outbox_copy import as_in_postgres, content, filled
from tests.support.outbox.outbox_process import Child
from tests.support.outbox.outbox_store import Store, postgres, sqlite
from tests.support.outbox.postgres import PostgresServer


@pytest.fixture
async def logs(tmp_path: Path, postgres_server: PostgresServer) -> AsyncIterator[tuple[Store, Store, Store]]:
    """A log, an empty database of PostgreSQL, and a file for the way back."""
    async with sqlite(tmp_path) as source, postgres(postgres_server) as there:
        await filled(source)
        yield source, there, Store(f"sqlite:///{tmp_path}/back.db", source._stack)


async def test_a_copy_killed_again_and_again_is_complete_in_the_end(logs: tuple[Store, Store, Store]) -> None:
    source, there, back = logs
    for origin, target in ((source, there), (there, back)):
        for last, times in (("INSERT", 4), ("UPDATE unfinished_copy", 4), ("DROP TABLE", 1)):
            async with Child("copy", origin.url, target.url, last, str(times)) as child:
                assert await child.line() == ""
                assert await child.process.wait() == -signal.SIGKILL
        async with Child("copy", origin.url, target.url, "none", "1") as child:
            assert await child.line() == "resumed True"
    assert content(there) == content(back) == as_in_postgres(content(source))
