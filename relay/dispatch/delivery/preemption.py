"""Limits how long an interim may delay a durable event."""

import asyncio
import time
from collections.abc import Awaitable

from relay.dispatch.http.outcome import Failed, Outcome
from relay.dispatch.work import Work

WITHIN_S = 0.5
"""How long an interim's attempt may continue once a durable event waits behind it. Most endpoints answer sooner, and an
abort costs the connection."""


async def preemptible(post: Awaitable[Outcome], work: Work) -> Outcome:
    """Return the outcome of an interim's attempt, aborted if it blocks the work."""
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    try:
        async with asyncio.timeout(None) as limit:
            work.abort_interim = lambda: limit.reschedule(loop.time() + WITHIN_S)
            work.expedite()
            return await post
    except TimeoutError:
        return Failed("timeout", (time.perf_counter() - began) * 1000, detail="broken off for what waited behind it")
    finally:
        work.abort_interim = None
