"""What processes of rooms count reaches the service, and outlives them."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from relay.telemetry.job_counts import CountReports, JobCounts
from relay.telemetry.metrics import Counter, Histogram

JOB = """
import asyncio, sys
from relay.telemetry.job_counts import CountReports
from relay.telemetry.metrics import Counter, Histogram

async def main():
    events, seconds = Counter("events", "", ("type",)), Histogram("append_seconds", "", (0.1, 1))
    events.inc(("stream.started",), 3)
    seconds.observe(0.5)
    await CountReports(sys.argv[1], [events, seconds], lambda: {"streams": 2}).start()
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


async def test_a_killed_job_s_counts_stay_and_what_it_heard_does_not() -> None:
    events, seconds = Counter("events", "", ("type",)), Histogram("append_seconds", "", (0.1, 1))
    async with JobCounts([events, seconds]) as counts:
        job = await asyncio.create_subprocess_exec(sys.executable, "-c", JOB, counts.path)
        try:
            await until(lambda: counts.level("streams") == 2)
        finally:
            os.kill(job.pid, signal.SIGKILL)
            await job.wait()
        await until(lambda: counts.level("streams") == 0)
    assert events.value(type="stream.started") == 3
    assert seconds.take() == [((), [0, 1, 0, 0.5])]


async def test_several_jobs_are_added_up_and_report_last_when_they_end() -> None:
    events = Counter("events", "", ("type",))
    async with JobCounts([events]) as counts:
        own = [Counter("events", "", ("type",)) for _ in range(3)]
        reports = [CountReports(counts.path, [each], lambda: {"streams": 1}) for each in own]
        for report in reports:
            await report.start()
        await until(lambda: counts.level("streams") == 3)
        for each in own:
            each.inc(("stream.ended",))
        for report in reports:
            await report.aclose()
        await until(lambda: counts.level("streams") == 0)
        assert events.value(type="stream.ended") == 3


async def test_what_is_no_report_ends_its_connection_and_nothing_else() -> None:
    events = Counter("events", "", ("type",))
    async with JobCounts([events]) as counts:
        for line in (b"not json\n", b"[]\n", b'{"levels": {}, "counts": {"unknown": []}}\n', b"x" * 2_000_000 + b"\n"):
            reader, writer = await asyncio.open_unix_connection(counts.path)
            writer.write(line)
            async with asyncio.timeout(30):
                with suppress(ConnectionResetError):
                    await reader.read()
            writer.close()
        own = Counter("events", "", ("type",))
        own.inc(("stream.started",))
        report = CountReports(counts.path, [own], dict)
        await report.start()
        await report.aclose()
        await until(lambda: events.value() == 1)


async def test_the_socket_is_for_this_user_only_and_leaves_nothing_behind() -> None:
    async with JobCounts([]) as counts:
        folder = Path(counts.path).parent
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


async def test_a_job_without_a_service_goes_on_uncounted(tmp_path: Path) -> None:
    report = CountReports(str(tmp_path / "counts"), [], dict)
    await report.start()
    await report.aclose()
