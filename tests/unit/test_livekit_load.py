"""A machine that is too busy says so."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from relay.capture.worker import load
from relay.capture.worker.load import CpuLoad, LoadNotices
from tests.support.outbox.outbox_store import HandClock


class Monitor:
    def __init__(self, *samples: float) -> None:
        self._samples = list(samples)
        self.measured = 0

    def cpu_percent(self, interval: float) -> float:
        self.measured += 1
        return self._samples.pop(0) if len(self._samples) > 1 else self._samples[0]


class PassingClock(HandClock):
    """So many milliseconds pass with each look."""

    def __init__(self, step_ms: int) -> None:
        super().__init__(0)
        self.step_ms = step_ms

    def steady_ms(self) -> int:
        self.at += self.step_ms
        return self.at


@contextlib.asynccontextmanager
async def measuring(cpu: CpuLoad, monkeypatch: pytest.MonkeyPatch, *samples: float) -> AsyncIterator[list[bool]]:
    """All samples taken, and what was told of on the way; the last sample repeats."""
    monitor, changes = Monitor(*samples), list[bool]()

    async def on_change() -> None:
        changes.append(cpu.refusing)

    monkeypatch.setattr(load, "get_cpu_monitor", lambda: monitor)
    running = asyncio.create_task(cpu.run(on_change))
    async with asyncio.timeout(30):
        while monitor.measured < len(samples) + 6:  # noqa: ASYNC110 - it is measured in a thread
            await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    yield changes


@pytest.mark.parametrize(("samples", "says"), [((0.9,) * 5 + (0.1,), "90 % busy"), ((0.1,), None)])
async def test_refusing_for_load_is_logged(
    samples: tuple[float, ...], says: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cpu = CpuLoad(limit=0.7, clock=PassingClock(30_000))
    assert (cpu(), cpu.refusing) == (0.0, False)
    async with measuring(cpu, monkeypatch, *samples) as changes:
        assert cpu() == pytest.approx(0.1)
        assert changes == ([True, False] if says else [])
    if says is None:
        assert caplog.text == ""
    else:
        assert says in caplog.text
        assert "new rooms are refused" in caplog.text
        assert "accepted again" in caplog.text


async def test_a_machine_about_its_limit_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    around = [0.75] * 5 + [0.65, 0.75] * 20
    async with measuring(CpuLoad(limit=0.7), monkeypatch, *around) as changes:
        assert changes == [True]
    assert caplog.text.count("new rooms are refused") == 1


def watched(clock: HandClock, *loads: float) -> list[int]:
    """When each line was logged, in milliseconds, with a look at the load every half second."""
    notices, told = LoadNotices(clock), list[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load.log, "handle", lambda _: told.append(clock.at))
        for busy in loads:
            notices.observe(busy > 0.7, busy, 0.7)
            clock.at += 500
    return told


def test_a_load_that_swings_for_half_an_hour_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert watched(HandClock(0), *([0.9] * 10 + [0.3] * 50) * 60) == [0]


def test_two_lines_about_the_load_are_at_least_a_minute_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    told = watched(HandClock(0), *([0.9] * 10 + [0.3] * 130) * 20)
    assert len(told) >= 20
    assert all(later - earlier >= 60_000 for earlier, later in pairwise(told))


async def test_the_server_is_told_less_than_it_stops_at_while_rooms_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, busy in [(0.5, 0.5), (0.9, 0.85), (1.0, 1.0)]:
        cpu = CpuLoad(limit)
        async with measuring(cpu, monkeypatch, busy):
            assert not cpu.refusing
            assert cpu.reported() < 0.7
    cpu = CpuLoad(0.5)
    async with measuring(cpu, monkeypatch, 0.6):
        assert cpu.refusing
        assert cpu.reported() >= 0.7
