"""Lanes under any order of operations, beside a model: as in tests/property, on PostgreSQL."""

from contextlib import AbstractAsyncContextManager

import pytest
from hypothesis import settings

from tests.property.test_outbox_lanes import Lanes
from tests.support.outbox.outbox_store import Store, postgres
from tests.support.outbox.postgres import PostgresServer


class LanesInPostgres(Lanes):
    """In a database of its own for each example."""

    server: PostgresServer

    def __init__(self) -> None:
        super().__init__()
        self.log.woken_since_ms = 100  # the processes' clocks differ

    def store(self) -> AbstractAsyncContextManager[Store]:
        return postgres(self.server)


@pytest.fixture(scope="module")
def lanes_server(postgres_server: PostgresServer) -> None:
    LanesInPostgres.server = postgres_server


TestLanesInPostgres = pytest.mark.usefixtures("lanes_server")(LanesInPostgres.TestCase)
TestLanesInPostgres.settings = settings(max_examples=10, stateful_step_count=30, deadline=None)
