"""One stream's log, as its writer holds it."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relay.errors import Fenced, OutboxError
from relay.events.envelope import LoggedEvent, StreamEvent
from relay.events.omission import omitted
from relay.outbox.log.retry import PAUSE
from relay.outbox.log.spill import SpillFile, SpillFolder
from relay.outbox.log.streams import Held
from relay.outbox.metrics import LogMetrics
from relay.outbox.records import Append, Record, record

LARGEST_BODY = 256 * 1024
"""Bytes. Many receivers refuse larger requests."""
LARGE_BODY = 20_000
"""Bytes. Standard Webhooks asks for payloads below this."""

_log = logging.getLogger(__name__)


class Sizing:
    """Makes the records of one stream. An event that is too large is replaced by a notice, and never blocks its stream.

    Each kind of problem is reported to the operator once per stream.
    """

    def __init__(self, stream_id: str) -> None:
        self._stream_id = stream_id
        self._told: set[int] = set()

    def record(self, event: LoggedEvent) -> Record:
        """Return the event as it is logged.

        Over 256 KiB the participant's attributes are removed. If that is not enough, the event is replaced: same id,
        same sequence, and the stream ends where it would have ended.
        """
        whole = record(event)
        size = len(whole.body)
        if size > LARGE_BODY:
            self._tell(whole, LARGEST_BODY if size > LARGEST_BODY else LARGE_BODY)
        if size <= LARGEST_BODY:
            return whole
        if isinstance(event, StreamEvent):
            omitted_before = event.participant.attributes_omitted
            omitted_now = omitted_before + len(event.participant.attributes)
            bare = event.participant.model_copy(update={"attributes": {}, "attributes_omitted": omitted_now})
            event = event.model_copy(update={"participant": bare})
            if len((shorter := record(event)).body) <= LARGEST_BODY:
                return shorter
        replacement = record(omitted(event, size=size, limit=LARGEST_BODY))
        return replacement._replace(closes=whole.closes)

    def _tell(self, whole: Record, limit: int) -> None:
        if limit in self._told:
            return
        self._told.add(limit)
        where = (self._stream_id, whole.type, len(whole.body), limit)
        if limit == LARGEST_BODY:
            _log.error(
                "stream %s: %s of %d bytes is over the limit of %d: it goes without the participant's attributes, or "
                "is replaced by an event that says so; further ones on this stream are not reported here",
                *where,
            )
        else:
            _log.warning(
                "stream %s: %s of %d bytes: receivers may refuse what is over %d; include less for those that do; "
                "further ones on this stream are not reported here",
                *where,
            )


_MOST_RECORDS, _MOST_BYTES = 512, 4 << 20
"""Of one append to the database, where more wait."""

SPILL_AFTER = 2.0
"""Seconds that an append waits for the database in memory only."""
_IN_MEMORY = 1 << 20
"""Bytes of a stream that wait in memory only."""


@dataclass(slots=True)
class _QueuedAppend:
    records: Sequence[Record]
    """Empty while it is in the stream's file."""
    count: int
    size: int
    done: asyncio.Future[None]
    since: float
    """When it was queued, on the event loop's clock."""


class StreamLog:
    """Appends to one stream in call order: one transaction at a time, with everything that arrived meanwhile.

    ``retry_s`` is how long, in seconds, an append is retried while the log cannot be written. With ``spill`` it is
    without end as long as its folder has room: what waits for longer than a moment is in a file, too.
    """

    def __init__(
        self,
        held: Held,
        append: Callable[[Append], asyncio.Future[None]],
        abandon: Callable[[Held], asyncio.Future[None]],
        *,
        retry_s: float,
        metrics: LogMetrics,
        spill: SpillFolder | None = None,
    ) -> None:
        self.id = held.id
        self._spill = spill
        self._spilled: SpillFile | None = None
        """Has everything that waits, in order."""
        self._stream, self._fence, self._committed = held.stream, held.fence, held.last_sequence
        self._append, self._abandon, self._retrying, self._metrics = append, abandon, retry_s, metrics
        self._sizing = Sizing(held.id)
        self._loop = asyncio.get_running_loop()
        self._last = held.last_sequence
        self._closed = self._closing = False
        self._waiting: deque[_QueuedAppend] = deque()
        self._writing: list[_QueuedAppend] = []
        self._commit: asyncio.Future[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._give_up_at: float | None = None

    @property
    def last_sequence(self) -> int:
        """Sequence of the last event that was appended and has not failed, 0 if none; the next event's is one more."""
        return self._last

    def append(self, events: Sequence[LoggedEvent]) -> asyncio.Future[None]:
        """Append events of this stream; the future is done when all of them are committed, or none.

        Their sequences must continue ``last_sequence`` without a gap, and nothing may follow an event that closes the
        stream: ``ValueError`` otherwise. An event over 256 KiB is replaced by a notice in its place.

        The future fails with ``Fenced`` if the stream was taken over, with ``OutboxError`` if the log could not be
        written within ``retry_s``; every append after it fails, too. After an ``OutboxError``, ``last_sequence`` is
        that of the last committed event, and the caller may continue from there.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        if not events:
            done.set_result(None)
            return done
        records = [self._sizing.record(event) for event in events]
        if any(event.stream.id != self.id for event in events):
            raise ValueError(f"an event of another stream was to be appended to stream {self.id}")
        self._check(records)
        if self._spilled is not None and not self._spilled.add(records):
            done.set_exception(OutboxError("the database is away, and what waits for it on disk may not grow any more"))
            return done
        self._last = records[-1].sequence
        self._closed = records[-1].closes
        size = sum(len(one.body) for one in records)
        kept = records if self._spilled is None else ()
        self._waiting.append(_QueuedAppend(kept, len(records), size, done, self._loop.time()))
        if not self._writing:
            self._write()
        return done

    def abandon(self) -> asyncio.Future[None]:
        """Close the stream without a last event, as for one that never began. Nothing may be appended any more.

        The future is done at the commit. It fails with ``Fenced`` if the stream was taken over or closed, with
        ``OutboxError`` if the log cannot be written; the stream is then unchanged, and may be abandoned again.
        ``ValueError`` during an append.
        """
        if self._writing:
            raise ValueError(f"stream {self.id} is being appended to: it cannot be abandoned")
        done = self._abandon(Held(self._stream, self.id, self._fence, self._committed))
        self._closed = True
        done.add_done_callback(self._abandoned)
        return done

    def spill_what_waits(self) -> None:
        """Write pending records to the stream's file once they have waited for long, or are many. Call it often."""
        waiting = [*self._writing, *self._waiting]
        late = bool(waiting) and self._loop.time() - waiting[0].since >= SPILL_AFTER
        if late or sum(each.size for each in waiting) > _IN_MEMORY:
            self._spill_now(waiting)

    def _spill_now(self, waiting: Sequence[_QueuedAppend]) -> None:
        if self._spill is None or self._spilled is not None:
            return
        held = Held(self._stream, self.id, self._fence, self._committed)
        self._spilled = self._spill.begin(held, (one for each in waiting for one in each.records))
        if self._spilled is not None:
            self._spilled.skip([one for each in self._writing for one in each.records])
            for each in self._waiting:
                each.records = ()

    async def aclose(self) -> None:
        """Wait for the writes in progress; waiting retries fail at once. What is in a file stays there."""
        self._closing = True
        if self._retry:
            self._retry.cancel()
            self._fail(OutboxError("the outbox was closed before it could be written"))
        while self._writing and self._commit:
            await asyncio.wait([self._commit])

    def _check(self, records: Sequence[Record]) -> None:
        if self._closed or any(one.closes for one in records[:-1]):
            raise ValueError(f"stream {self.id} is closed: nothing follows its last event")
        for expected, one in enumerate(records, self._last + 1):
            if one.sequence != expected:
                raise ValueError(f"stream {self.id} goes on with sequence {expected}, not {one.sequence}")

    def _write(self) -> None:
        count = size = 0
        while self._waiting and (not count or self._fits(self._waiting[0], count, size)):
            self._writing.append(self._waiting.popleft())
            count, size = count + self._writing[-1].count, size + self._writing[-1].size
        try:
            for each in self._writing:
                if not each.records and self._spilled is not None:
                    each.records = self._spilled.read(each.count)
                    if len(each.records) < each.count:
                        raise OutboxError("what waited on disk was damaged")  # noqa: TRY301 - as an OSError
        except (OSError, OutboxError) as error:
            self._fail(OutboxError(f"stream {self.id}: {error}"))
        else:
            self._submit()

    def _fits(self, more: _QueuedAppend, count: int, size: int) -> bool:
        return count + more.count <= _MOST_RECORDS and size + more.size <= _MOST_BYTES

    def _submit(self) -> None:
        self._retry = None
        records = [one for waiting in self._writing for one in waiting.records]
        try:
            self._commit = self._append(Append(self._stream, self._fence, records))
        except OutboxError as error:
            self._fail(error)
        else:
            self._commit.add_done_callback(self._written)

    def _written(self, commit: asyncio.Future[None]) -> None:
        error = commit.exception()
        if error is None:
            self._committed = self._writing[-1].records[-1].sequence
            written, self._writing = self._writing, []
            self._give_up_at = None
            now = self._loop.time()
            for waiting in written:
                self._metrics.appended(waiting.records, now - waiting.since)
                if not waiting.done.done():
                    waiting.done.set_result(None)
            if self._waiting:
                self._write()
            elif self._spilled is not None:
                self._spilled.remove()
                self._spilled = None
        elif isinstance(error, OutboxError) and not isinstance(error, Fenced) and self._patient():
            self._retry = self._loop.call_later(PAUSE, self._submit)
        else:
            self._fail(error)

    def _abandoned(self, done: asyncio.Future[None]) -> None:
        self._closed = not done.cancelled() and done.exception() is None

    def _patient(self) -> bool:
        if self._closing:
            return False
        if self._spilled is not None:
            return True
        now = self._loop.time()
        if self._give_up_at is None:
            self._give_up_at = now + self._retrying
        return now < self._give_up_at

    def _fail(self, error: BaseException) -> None:
        failed = [*self._writing, *self._waiting]
        self._leave(failed, error)
        self._writing, self._give_up_at, self._retry = [], None, None
        self._waiting.clear()
        self._last, self._closed = self._committed, False
        for waiting in failed:
            if not waiting.done.done():
                waiting.done.set_exception(error)

    def _leave(self, failed: Sequence[_QueuedAppend], error: BaseException) -> None:
        """Leave what waits to the next process, if only the database has kept this one from appending it."""
        if self._closing and isinstance(error, OutboxError) and not isinstance(error, Fenced):
            self._spill_now(failed)
            if self._spilled is not None:
                self._spilled.keep()
        elif self._spilled is not None:
            self._spilled.remove()
        self._spilled = None
