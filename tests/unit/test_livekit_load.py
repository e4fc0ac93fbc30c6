"""A machine that is too busy says so."""

import asyncio
import contextlib

import pytest

from relay.capture.livekit import load
from relay.capture.livekit.load import CpuLoad


class Monitor:
    def __init__(self, *samples: float) -> None:
        self._samples = list(samples)
        self.measured = 0

    def cpu_percent(self, interval: float) -> float:
        self.measured += 1
        return self._samples.pop(0) if len(self._samples) > 1 else self._samples[0]


@pytest.mark.parametrize(("samples", "says"), [((0.9,) * 5 + (0.1,), "90 % busy"), ((0.1,), None)])
async def test_refusing_for_load_is_logged(
    samples: tuple[float, ...], says: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monitor = Monitor(*samples)
    monkeypatch.setattr(load, "get_cpu_monitor", lambda: monitor)
    cpu = CpuLoad(threshold=0.7)
    assert (cpu(), cpu.refusing) == (0.0, False)
    running = asyncio.create_task(cpu.run())
    async with asyncio.timeout(3):
        while monitor.measured < 12:  # noqa: ASYNC110 - it is measured in a thread
            await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert cpu() == pytest.approx(0.1)
    if says is None:
        assert caplog.text == ""
    else:
        assert says in caplog.text
        assert "new rooms are refused" in caplog.text
        assert "taken again" in caplog.text
