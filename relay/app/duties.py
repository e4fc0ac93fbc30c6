"""What one process of a fleet does for all of them: covering rooms, pruning the log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from relay.errors import OutboxError
from relay.outbox.log.processes import Duty
from relay.outbox.outbox import Outbox
from relay.telemetry.log_dedup import Outage

HELD_MS = 3_000
"""How long a duty stays with a process that cannot be asked: a dead machine's is taken over then."""
_EVERY_S = 1.0

log = logging.getLogger(__name__)


async def on_duty(
    duty: Duty,
    work: Callable[[], Awaitable[None]],
    *,
    outbox: Outbox,
    process: str,
    ended: Callable[[], Collection[str]],
) -> None:
    """Do ``work`` while this process has the duty, until cancelled; what it raises is raised here.

    The process takes the duty when no other has it, or its owner is one of those that have ``ended``. While the log
    cannot be used, no other can take it, and the one that has it goes on: two may do the work for a while where only
    one of them reaches the log, so the work must bear that.
    """
    working: asyncio.Task[None] | None = None
    outage = Outage(log, f"the duty {duty} cannot be renewed")
    try:
        while True:
            try:
                held = await outbox.hold_duty(duty, process, for_ms=HELD_MS, gone=ended())
            except OutboxError as error:
                outage.failed(error)
                held = working is not None
            else:
                outage.over()
            if held and working is None:
                log.debug("this process has the duty %s", duty)
                working = asyncio.ensure_future(work())
            elif not held and working is not None:
                log.warning("another process has the duty %s now", duty)
                await _end(working)
                working = None
            await _sleep(working)
    finally:
        if working is not None:
            await _end(working)


async def _sleep(working: "asyncio.Future[None] | None") -> None:
    """Until the duty is to be renewed, or the work is over: it raises then what that has raised."""
    if working is None:
        await asyncio.sleep(_EVERY_S)
        return
    await asyncio.wait([working], timeout=_EVERY_S)
    if working.done():
        working.result()


async def _end(working: "asyncio.Future[None]") -> None:
    working.cancel()
    await asyncio.wait([working])
