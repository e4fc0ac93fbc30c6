"""Each part that ``/readyz`` asks about says so when it fails, and what to do; and when it works again."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from relay.app.listening import detectors_problem
from relay.app.status import Figures, StatusReports
from relay.clock import SystemClock
from relay.dispatch import maintenance
from relay.outbox.log.processes import ProcessState
from relay.outbox.outbox import Outbox
from relay.recording.metrics import CaptureMetrics
from relay.recording.recorder import StreamRecorder
from relay.speech.observations import Ended, Listening, SourceDown, SourceUp
from relay.telemetry.job_counts import CountReports, JobCounts
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import dispatching, endpoint, until
from tests.support.dispatch.memory_lanes import MemoryLanes, MemoryLog
from tests.support.dispatch.receiver import receiving
from tests.support.outbox.outbox_store import HandClock
from tests.support.outbox.small_disk import small_disk
from tests.support.providers.realtime_plays import Told
from tests.unit.timelines.play import T0, tracker

FIGURES = Figures((), cpu_limit=0.7)


async def test_a_full_disk_shows_in_the_readiness_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.app.status.EVERY_S", 0.02)
    with small_disk(tmp_path / "disk") as disk:
        outbox = await Outbox.open(f"sqlite:///{disk.path}/relay.db", name="relay", clock=SystemClock())
        async with StatusReports(outbox, SystemClock(), lambda: FIGURES, process="this") as reports:
            await until(lambda: reports.log_problem() is None)
            disk.fill()
            await until(lambda: (reports.log_problem() or "").startswith("the log cannot be written: "))
            disk.free()
            await until(lambda: reports.log_problem() is None)
        await outbox.aclose()


async def test_a_log_that_another_program_holds_shows_in_its_readiness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.app.status.EVERY_S", 0.02)
    monkeypatch.setattr("relay.app.status.STUCK_AFTER_MS", 1_000)
    outbox = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="relay", clock=SystemClock())
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    async with StatusReports(outbox, SystemClock(), lambda: FIGURES, process="this") as reports:
        await until(lambda: reports.log_problem() is None)
        other.execute("BEGIN EXCLUSIVE")
        await until(lambda: reports.log_problem() is not None)
        other.execute("ROLLBACK")
        await until(lambda: reports.log_problem() is None)
    other.close()
    await outbox.aclose()


async def test_a_log_that_takes_no_write_for_long_is_named() -> None:
    class Hanging:
        async def note_process(self, _state: object) -> None:
            await asyncio.Event().wait()

    clock = HandClock()
    reports = StatusReports(Hanging(), clock, lambda: FIGURES, process="this")  # type: ignore[arg-type]
    assert reports.log_problem() is None
    clock.at += 20_000
    assert (reports.log_problem() or "").startswith("the log has taken no write for 20 s: ")


async def test_a_bug_in_the_reports_ends_the_process_which_the_others_would_take_for_dead() -> None:
    class Broken:
        def __init__(self) -> None:
            self.stopped: list[bool] = []

        async def note_process(self, state: ProcessState) -> None:
            self.stopped.append(state.stopped_at is not None)
            if state.stopped_at is None:
                raise LookupError

    broken = Broken()
    with pytest.raises(ExceptionGroup) as raised:
        async with (
            asyncio.timeout(30),
            StatusReports(broken, SystemClock(), lambda: FIGURES, process="this"),  # type: ignore[arg-type]
        ):
            await asyncio.Event().wait()
    assert raised.group_contains(LookupError)
    assert broken.stopped == [False, True]


async def test_a_stuck_dispatcher_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lanes(MemoryLanes):
        def __init__(self, log: MemoryLog) -> None:
            super().__init__(log)
            self.answering = asyncio.Event()
            self.answering.set()

        async def last_sequences(self, streams: object) -> dict[int, int]:
            await self.answering.wait()
            return await super().last_sequences(streams)  # type: ignore[arg-type]

    log = MemoryLog(SystemClock())
    lanes = Lanes(log)
    async with receiving() as receiver, dispatching(log, endpoint(receiver.url), lanes=lanes) as (dispatcher, _):
        log.append(log.open(), a_record(1))
        await until(lambda: len(receiver.requests) == 1)
        assert dispatcher.problem() is None
        monkeypatch.setattr(maintenance, "STUCK_AFTER_S", 0.5)
        lanes.answering.clear()
        await until(lambda: (dispatcher.problem() or "").startswith("the dispatcher has been stuck for "))
        lanes.answering.set()
        await until(lambda: dispatcher.problem() is None)


async def test_a_dispatcher_without_a_log_names_the_log_s_error() -> None:
    log = MemoryLog(SystemClock())
    lanes = MemoryLanes(log)
    async with receiving() as receiver, dispatching(log, endpoint(receiver.url), lanes=lanes) as (dispatcher, _):
        lanes.broken = True
        await until(lambda: dispatcher.problem() == "deliveries wait for the log: the disk is full")
        lanes.broken = False
        await until(lambda: dispatcher.problem() is None)


async def test_a_detector_that_is_down_on_every_track_is_named() -> None:
    metrics = CaptureMetrics()
    recorder = StreamRecorder(tracker(), Told(), HandClock(T0), metrics=metrics)
    async with JobCounts(metrics.families) as jobs:
        reports = CountReports(jobs.path, (), metrics.levels)
        await reports.start()
        assert detectors_problem(jobs) is None
        recorder.observe(Listening(T0, T0))
        recorder.observe(SourceDown("stt", "refused", T0))
        await until(lambda: (detectors_problem(jobs) or "").startswith("speech recognition is down on the only track "))
        recorder.observe(SourceUp("stt", "refused", T0, 10, None))
        await until(lambda: detectors_problem(jobs) is None)
        recorder.observe(SourceDown("audio", "encrypted", T0))
        recorder.observe(SourceDown("stt", "lost", T0))
        await until(lambda: detectors_problem(jobs) is not None)
        recorder.observe(Ended("unpublished", heard_ms=0))
        await until(lambda: detectors_problem(jobs) is None)
        recorder.close()
        await reports.aclose()
