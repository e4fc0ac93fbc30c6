"""The reader: queries that arrive while a statement runs are answered together by the next one."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from relay.outbox.database import Database
from relay.outbox.failure import broken
from relay.outbox.log.batching import Batching
from relay.outbox.records import Record

T = TypeVar("T")

_MOST_READS = 256


@dataclass(frozen=True, slots=True)
class _Range:
    stream: int
    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class _Query:
    run: Callable[[sa.Connection], Any]


class Reader:
    """One thread with a connection of its own, opened for the first question: reading never waits for a commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sa.Connection | None = None
        self._thread: Batching[_Range | _Query] = Batching("outbox-reader", self._read, limit=_MOST_READS)

    def read(self, stream: int, after: int, limit: int) -> asyncio.Future[list[Record]]:
        """A stream's events after ``after``, in order, at most ``limit``."""
        return self._thread.submit(_Range(stream, after, limit))

    def query(self, run: Callable[[sa.Connection], T]) -> asyncio.Future[T]:
        """Run any other query."""
        return cast("asyncio.Future[T]", self._thread.submit(_Query(run)))

    async def aclose(self) -> None:
        """Answer what is queued and release the database."""
        await self._thread.aclose()
        if self._connection is not None:
            await asyncio.to_thread(self._connection.close)

    def _read(self, questions: Sequence[_Range | _Query]) -> Sequence[object]:
        outcomes: dict[int, object] = {}
        ranges = [(n, question) for n, question in enumerate(questions) if isinstance(question, _Range)]
        if ranges:
            wants = [(want.stream, want.after, want.limit) for _, want in ranges]
            found = self._guarded(lambda connection: self._database.read(connection, wants))
            for place, (n, _) in enumerate(ranges):
                outcomes[n] = found if isinstance(found, Exception) else found[place]
        for n, question in enumerate(questions):
            if isinstance(question, _Query):
                outcomes[n] = self._guarded(partial(self._query, question.run))
        return [outcomes[n] for n in range(len(questions))]

    def _query(self, run: Callable[[sa.Connection], T], connection: sa.Connection) -> T:
        with self._database.reading(connection):
            return run(connection)

    def _guarded(self, run: Callable[[sa.Connection], T]) -> T | Exception:
        try:
            if self._connection is None:
                self._connection = self._database.connect_reader()
            try:
                return run(self._connection)
            except sa.exc.DBAPIError as error:
                self._connection.rollback()
                if not error.connection_invalidated:
                    raise
                return run(self._connection)  # on a new one: it may have been lost long ago
        except Exception as error:  # becomes the outcome for the caller
            if self._connection is not None:
                self._connection.rollback()
            return broken(self._database.place, error) or error
