"""What the tests of several folders begin with."""

import os
from collections.abc import AsyncIterator

import pytest

from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import LiveKitServer, livekit_server

# `check` refuses files with secrets that others may read: those that tests write are as an operator should have them.
os.umask(0o077)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """An endpoint's other side, on loopback."""
    async with receiving() as running:
        yield running


@pytest.fixture
async def server() -> AsyncIterator[LiveKitServer]:
    """A real LiveKit server, on loopback."""
    async with livekit_server() as running:
        yield running
