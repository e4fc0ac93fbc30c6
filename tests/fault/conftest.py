"""Databases that are written by several processes."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.outbox.outbox_store import Store, postgres
from tests.support.outbox.postgres import PostgresServer, running_server


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
