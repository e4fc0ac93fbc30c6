"""What the contract is kept by."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.outbox.outbox_store import STORES, Store, postgres, sqlite


@pytest.fixture
def store(either_store: Store) -> Store:
    """Each kind of log in turn, without events."""
    return either_store


@pytest.fixture(params=STORES)
async def empty_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """A database without any tables."""
    if request.param == "sqlite":
        kind = sqlite(tmp_path)
    else:
        kind = postgres(request.getfixturevalue("postgres_server"), template="template1")
    async with kind as opened:
        yield opened
