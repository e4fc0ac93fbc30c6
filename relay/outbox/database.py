"""The differences between SQLite and PostgreSQL: opening, write transactions, and the hot statements."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import sqlalchemy as sa

from relay.clock import SharedClock
from relay.outbox.records import Append, Attempt, Growth, Lane, LanesWanted, Record, Settlement


class Bell(Protocol):
    """Notifies the dispatchers that streams have grown, after the commit. Never raises: a lost ring only costs time."""

    def ring(self, growth: Growth) -> None: ...

    def close(self) -> None: ...


class Doorbell(Protocol):
    """A listener to the rings of every process, until it is closed."""

    def close(self) -> None: ...


AT_ONCE = 256
"""Maximum records in one statement."""


class Database(Protocol):
    """A database that the log can live in, with its tables up to date.

    A connection belongs to the thread that works with it.
    """

    place: str
    """The name shown to the operator."""
    found_tables: str | None
    """The version of the tables when it was opened; None if it had no tables."""
    retry_s: float
    """Seconds for which an append is retried while the log cannot be written."""

    @property
    def clock(self) -> SharedClock | None:
        """The database's own, if processes on several hosts may use it."""
        ...

    claims_at_once: bool
    """Whether :meth:`claim` is one statement."""
    concurrent: bool
    """Whether transactions that are not alone run at the same time."""

    def reserve(self, name: str) -> None:
        """Reserve a name while this is open. Raises ``OutboxError`` while another process has it."""
        ...

    def connect_writer(self) -> sa.Connection: ...

    def connect_reader(self) -> sa.Connection: ...

    def turn(self, connection: sa.Connection) -> AbstractContextManager[object]:
        """For one call of :meth:`append`, :meth:`settle` or, if it is one statement, :meth:`claim`; committed at the
        end."""
        ...

    def transaction(
        self, connection: sa.Connection, *, alone: bool, opens: bool = False
    ) -> AbstractContextManager[object]:
        """One transaction: committed at the end, rolled back on an exception.

        ``alone``: no other transaction of any process runs meanwhile, and what it reads stays true until its end.
        Otherwise it may run beside others that are not alone; of those that open streams (``opens``) there is one at a
        time. Raises an error of the database if it waits too long.
        """
        ...

    def standstill(self, connection: sa.Connection) -> AbstractContextManager[object]:
        """A transaction that is alone, however long it takes: the writers of other processes give up meanwhile."""
        ...

    def last_numbers(self, connection: sa.Connection) -> Mapping[str, int]:
        """The highest number ever given to a row, of each table for which the database remembers it."""
        ...

    def number_after(self, connection: sa.Connection, last: Mapping[str, int]) -> None:
        """Let the next row of each table have a higher number than ``last`` says."""
        ...

    def reading(self, connection: sa.Connection) -> AbstractContextManager[object]:
        """For the statements of one query, on a reader's connection."""
        ...

    def append(self, connection: sa.Connection, appends: Sequence[Append], now: int) -> bool:
        """Write the records, close the streams that they close, make idle lanes due.

        Returns False and does nothing if the log is not as a writer expects: another writer has taken the stream over,
        it was closed, or its end is not where the records continue. At most ``AT_ONCE`` records are one statement.
        """
        ...

    def claim(
        self, connection: sa.Connection, wants: Sequence[LanesWanted], owner: str, now: int, lease_until: int
    ) -> list[Lane]:
        """Lease due lanes, longest due first within an endpoint; none of an endpoint that is not sent to."""
        ...

    def settle(self, connection: sa.Connection, settlements: Sequence[Settlement], now: int) -> bool:
        """Write the cursors of lanes, and their attempts; False, with nothing done, if one is no longer held.

        What only some settlements need in addition is left to the caller.
        """
        ...

    def release_until(self, connection: sa.Connection, settlements: Sequence[Settlement]) -> None:
        """End the leases of these lanes until their ``next_at``, and record when and how their heads fail."""
        ...

    def record_attempts(self, connection: sa.Connection, attempts: Sequence[Attempt]) -> None: ...

    def renew(self, connection: sa.Connection, lanes: Sequence[tuple[int, int]], lease_until: int) -> frozenset[int]:
        """Lease these (lane, fence) pairs until then; returns the lanes that were not lost."""
        ...

    def release(self, connection: sa.Connection, lanes: Sequence[tuple[int, int]], now: int) -> None: ...

    def read(self, connection: sa.Connection, wants: Sequence[tuple[int, int, int]]) -> list[list[Record]]:
        """The events of each (stream, after, limit), in order. Sequences have no gaps, so a range is a limit."""
        ...

    def read_clock(self, connection: sa.Connection) -> None:
        """Set :attr:`clock`, if there is one. Within a transaction, too."""
        ...

    def bell(self, writer: sa.Connection) -> Bell:
        """For the thread that works with this connection."""
        ...

    def break_off(self) -> None:
        """Wait for the database no longer, where waiting may be without end: what is asked of it fails from now on. May
        be called from any thread."""
        ...

    def close(self) -> None:
        """Release everything except the connections, which their users close."""
        ...

    def listen(self, rung: Callable[[Growth], None]) -> Doorbell:
        """Call ``rung`` on the running loop with what has grown."""
        ...

    def scrub(self, *, rewrite: bool) -> bool:
        """Overwrite deleted data wherever copies remain. Blocks, and appends wait meanwhile.

        ``rewrite``: even if that takes long. False if copies may remain: overwriting would have taken long, a reader
        prevents it for now, or the user may not. Raises ``OutboxError`` if the database cannot be written.
        """
        ...
