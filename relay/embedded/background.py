"""The relay's own thread in another application's process: the log and the delivery."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from functools import partial

from relay.app.delivery import delivering
from relay.app.orphans import close_orphans
from relay.clock import Clock
from relay.config.models import Config
from relay.embedded.recording import Mailbox, Recording
from relay.errors import RelayError, first_of
from relay.outbox.outbox import Outbox
from relay.recording.recorder import Records, tracker_settings
from relay.telemetry.log_dedup import Outage

log = logging.getLogger(__name__)

RETRY_S = 5.0
CONCURRENCY = 8
"""Requests in flight at once. The agent has priority, so a backlog of thousands is sent somewhat more slowly."""
SEATS = 256
"""Processes that may have the log open at once, each under its own name."""
SENDING_SHARE = 0.8
"""The part of the shutdown time reserved for delivery after the streams have ended."""
_MARGIN_S = 1.0
_LAST_TRIES_S = 1.0
"""Between attempts to open the log once the job ends."""


class Background:
    """Records and delivers on its own thread, from :meth:`start` to :meth:`aclose`.

    A separate thread, because a slow log or a backlog of events would delay the agent's event loop, which handles
    audio. It is a daemon thread, so it never keeps the process from exiting.
    """

    def __init__(self, config: Config, clock: Clock, *, deliver: bool, grace_s: float) -> None:
        self._config = config
        self._clock = clock
        self._sends = deliver
        self._grace_s = grace_s
        self._recordings: Mailbox[Recording | None] = Mailbox()
        self._records: Records | None = None
        self._stopped: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="speech-relay", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def record(self, recording: Recording) -> None:
        """Record this stream. May be called on any thread."""
        self._recordings.put(recording)

    async def aclose(self) -> None:
        """Write pending observations and send written events, within the grace period. End the recordings first.

        Called on the agent's event loop, which keeps running meanwhile. A hung thread is abandoned.
        """
        self._recordings.put(None)
        within = self._grace_s + _MARGIN_S
        _, late = await asyncio.wait([asyncio.wrap_future(self._stopped)], timeout=within)
        if late:
            log.warning("speech-relay did not stop within %g s; what is left is sent after the next start", within)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except Exception as error:
            log.error("speech-relay stopped (%s); the agent goes on without it", type(error).__name__)  # noqa: TRY400 - a message may quote a transcript
        finally:
            self._stopped.set_result(None)

    async def _live(self) -> None:
        ending, stopping = asyncio.Event(), asyncio.Event()
        opening = asyncio.create_task(self._opened(ending), name="opening")
        delivery = asyncio.create_task(self._deliver(opening, stopping), name="delivery")
        loop = asyncio.get_running_loop()
        try:
            writing = await self._record(opening)
            ending.set()
            ends_at = loop.time() + self._grace_s
            if writing:
                # nothing can be sent before the log is open
                await asyncio.wait(writing, timeout=self._grace_s * (1 - SENDING_SHARE if opening.done() else 1))
            for each in writing:
                each.cancel()
            stopping.set()
            if opening.done():
                await asyncio.wait([delivery], timeout=max(0.0, ends_at - loop.time()))
        finally:
            for task in (delivery, opening):
                task.cancel()
            await asyncio.wait([delivery, opening])
            if not opening.cancelled():
                await opening.result().aclose()

    async def _opened(self, ending: asyncio.Event) -> Outbox:
        outage = Outage(log, "speech-relay cannot record yet", level=logging.ERROR)
        while True:
            try:
                async with AsyncExitStack() as failed:
                    outbox = await self._seated()
                    failed.push_async_callback(outbox.aclose)
                    # Before the first stream: a stream opened before its endpoints are known has no lanes.
                    await outbox.lanes.sync_endpoints([endpoint.name for endpoint in self._config.endpoints])
                    failed.pop_all()
                    outage.over()
                    return outbox
            except Exception as error:
                outage.failed(_words(error))
            if ending.is_set():
                await asyncio.sleep(_LAST_TRIES_S)
            else:
                await _set_within(ending, RETRY_S)

    async def _seated(self) -> Outbox:
        """Open the log under the first free name. The successor of a dead process takes over its name and so its lanes
        at once, without waiting for its leases to expire."""
        log = self._config.outbox
        first, *others = (f"agent-{seat}" for seat in range(SEATS))
        return await Outbox.open(log.url, name=first, other_names=others, clock=self._clock, sole=True, spill=log.spill)

    async def _record(self, opening: asyncio.Task[Outbox]) -> Collection[asyncio.Task[None]]:
        """Record streams until the thread stops; returns what is still being written, or waits for the log."""
        running: set[asyncio.Task[None]] = set()
        while (recording := await self._recordings.take()) is not None:
            task = asyncio.create_task(self._written(opening, recording), name="recording")
            running.add(task)
            task.add_done_callback(running.discard)
        return list(running)

    async def _written(self, opening: asyncio.Task[Outbox], recording: Recording) -> None:
        try:
            outbox = await asyncio.shield(opening)
            self._records = self._records or Records(outbox, self._clock, tracker_settings(self._config.speech))
            await recording.run(self._records, self._clock)
        except Exception as error:
            log.error("speech-relay no longer records a track: %s", _words(error))  # noqa: TRY400 - for operators

    async def _deliver(self, opening: asyncio.Task[Outbox], stopping: asyncio.Event) -> None:
        outbox = await asyncio.shield(opening)
        if not self._sends:
            return
        keep_ms = round(self._config.outbox.retention.total_seconds() * 1000)
        async with asyncio.TaskGroup() as group:
            care = [
                group.create_task(_kept_up(partial(close_orphans, outbox, self._clock), stopping)),
                group.create_task(_kept_up(outbox.retention(keep_ms).run, stopping)),
            ]
            await _kept_up(partial(self._send, outbox, stopping), stopping)
            for duty in care:
                duty.cancel()

    async def _send(self, outbox: Outbox, stopping: asyncio.Event) -> None:
        async with delivering(
            outbox,
            self._config.endpoints,
            self._clock,
            grace_s=self._grace_s * SENDING_SHARE,
            concurrency=min(CONCURRENCY, self._config.dispatch.concurrency),
        ):
            await stopping.wait()


async def _kept_up(duty: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
    """Retry until it succeeds, whatever fails; a failure during shutdown ends it."""
    outage = Outage(log, f"a part of speech-relay failed and is started again in {RETRY_S:g} s", level=logging.ERROR)
    while not stopping.is_set():
        try:
            await duty()
        except Exception as error:
            outage.failed(_words(error))
        else:
            return
        await _set_within(stopping, RETRY_S)


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait until it is set, for so many seconds at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _words(error: Exception) -> str:
    """What may be logged of an error: the relay's own messages contain no transcripts, other libraries' might."""
    cause = first_of(error) if isinstance(error, ExceptionGroup) else error
    return str(cause) if isinstance(cause, RelayError) else type(cause).__name__
