"""What the tests of several folders begin with."""

import gc
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import LiveKitServer, livekit_server
from tests.support.outbox.outbox_store import STORES, Store, postgres, sqlite
from tests.support.outbox.postgres import PostgresServer, running_server

# `check` refuses files with secrets that others may read: those that tests write are as an operator should have them.
os.umask(0o077)

# Imports and collected tests stay. Looking for garbage among them took 4 of the 11 s of processor time of collecting.
gc.disable()


_LONGEST_FIRST = ("image", "torture", "deploy", "property", "cli", "fault", "contract", "live")
"""Folders in whose files a test may take a minute. Begun last, such a file would run on beside idle processors."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(order)))


def pytest_collection_finish() -> None:
    gc.enable()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tests about hostile names log lone surrogates, with which no report can be sent from one process to another."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for databases that no test expects to survive a crash."""
    with running_server() as running:
        yield running


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty log in SQLite, at a clock that the test sets."""
    async with sqlite(tmp_path, migrated=True) as opened:
        yield opened


@pytest.fixture(params=STORES)
async def either_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each kind of log in turn, without events."""
    if request.param == "sqlite":
        kind = sqlite(tmp_path, migrated=True)
    else:
        kind = postgres(request.getfixturevalue("postgres_server"))
    async with kind as opened:
        yield opened
