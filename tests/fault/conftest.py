"""Databases that are written by several processes."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.outbox.outbox_store import STORES, Store, postgres, sqlite
from tests.support.outbox.postgres import PostgresServer, running_server


@pytest.fixture(params=STORES)
async def either_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each kind of log in turn, without events."""
    if request.param == "sqlite":
        kind = sqlite(tmp_path, migrated=True)
    else:
        kind = postgres(request.getfixturevalue("postgres_server"))
    async with kind as opened:
        yield opened


@pytest.fixture
async def postgres_store(postgres_server: PostgresServer) -> AsyncIterator[Store]:
    """A log in PostgreSQL, without events."""
    async with postgres(postgres_server) as opened:
        yield opened


@pytest.fixture
def durable_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own, to crash."""
    with running_server(durable=True) as running:
        yield running
