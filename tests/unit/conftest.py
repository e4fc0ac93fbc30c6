"""A log in memory, on a clock that the test sets."""

import pytest

from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.outbox.outbox_store import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def log(clock: HandClock) -> MemoryLog:
    return MemoryLog(clock)
