"""What the tests of several folders begin with."""

from collections.abc import AsyncIterator

import pytest

from tests.support.receiver import Receiver, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """An endpoint's other side, on loopback."""
    async with receiving() as running:
        yield running
