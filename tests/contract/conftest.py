"""What the contract is kept by."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.outbox.outbox_store import STORES, Store


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each kind of log in turn, empty."""
    async with STORES[request.param](tmp_path) as opened:
        yield opened
