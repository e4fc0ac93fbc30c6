"""What waits for a log that does not answer ends with the process."""

import asyncio

import pytest

from relay.app.stopping import LogWaits, StoppedAtStart
from relay.errors import OutboxError


async def answers() -> str:
    return "a log"


async def fails() -> None:
    raise OutboxError("the log is away")


async def test_a_step_of_the_start_has_its_result_and_its_error() -> None:
    waits = LogWaits(asyncio.Event())
    assert await waits.before_stop(answers()) == "a log"
    with pytest.raises(OutboxError, match="the log is away"):
        await waits.before_stop(fails())


async def test_a_stop_breaks_off_a_step_that_waits_for_the_log() -> None:
    stop, broken_off, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await broken_off.wait()  # a thread that ends only when its connection does
            ended.set()

    waits = LogWaits(stop)
    waits.add(broken_off.set)
    step = asyncio.create_task(waits.before_stop(hangs()))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(30):
        with pytest.raises(StoppedAtStart):
            await step
    assert ended.is_set(), "the step must be over before the log is closed"


async def test_a_step_that_fails_as_it_is_broken_off_is_no_error() -> None:
    stop = asyncio.Event()

    async def fails_then() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OutboxError("the connection was closed") from None

    waits = LogWaits(stop)
    stop.set()
    async with asyncio.timeout(30):
        with pytest.raises(StoppedAtStart):
            await waits.before_stop(fails_then())


async def test_every_connection_is_broken_off_once_the_time_to_stop_is_over() -> None:
    stop, first, second = asyncio.Event(), asyncio.Event(), asyncio.Event()
    waits = LogWaits(stop)
    for connection in (first, second):
        waits.add(connection.set)
    ending = asyncio.create_task(waits.end_in_time(0.0))
    await asyncio.sleep(0)
    assert not first.is_set()
    stop.set()
    async with asyncio.timeout(30):
        await ending
    assert first.is_set()
    assert second.is_set()
