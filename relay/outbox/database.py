"""What SQLite and PostgreSQL do differently: opening, taking a turn to write, and the statements that are hot."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import sqlalchemy as sa

from relay.outbox.records import Attempt, Logged, Record, Settlement


class Advance(NamedTuple):
    """A stream's compare-and-set: from ``before`` to ``after``, if the fence still holds and the stream is open."""

    stream: int
    fence: int
    before: int
    after: int


class Bell(Protocol):
    """Tells the dispatchers that streams have grown. Never blocks, never raises: a lost ring only costs time."""

    def ring(self, streams: Iterable[int]) -> None: ...

    def close(self) -> None: ...


class Doorbell(Protocol):
    """A listener to the rings of every process, until it is closed."""

    def close(self) -> None: ...


class Database(Protocol):
    """One of the databases that the log can live in, with its tables up to date.

    A connection belongs to the thread that works with it.
    """

    place: str
    """What the operator knows it by."""

    def reserve(self, name: str) -> None:
        """Have a name for as long as this is open. Raises ``OutboxError`` while another process has it."""
        ...

    def connect_writer(self) -> sa.Connection: ...

    def connect_reader(self) -> sa.Connection: ...

    def transaction(self, connection: sa.Connection) -> AbstractContextManager[object]:
        """A turn to write: committed at the end, rolled back on an exception."""
        ...

    def advance(self, connection: sa.Connection, advances: Sequence[Advance]) -> int:
        """Move the streams' heads; how many of them moved."""
        ...

    def insert_events(self, connection: sa.Connection, events: Sequence[tuple[int, Record]]) -> None: ...

    def wake(self, connection: sa.Connection, streams: Sequence[int], now: int) -> None:
        """Make the idle lanes of these streams due."""
        ...

    def settle(self, connection: sa.Connection, settlements: Sequence[Settlement], now: int) -> int:
        """Write the cursors of lanes that are still held; how many were."""
        ...

    def let_go(self, connection: sa.Connection, settlements: Sequence[Settlement]) -> None:
        """End the leases of these lanes until their ``next_at``, and write since when their heads fail."""
        ...

    def record_attempts(self, connection: sa.Connection, attempts: Sequence[Attempt]) -> None: ...

    def renew(self, connection: sa.Connection, lanes: Sequence[tuple[int, int]], lease_until: int) -> None: ...

    def release(self, connection: sa.Connection, lanes: Sequence[tuple[int, int]], now: int) -> None: ...

    def read(self, connection: sa.Connection, wants: Sequence[tuple[int, int, int]]) -> list[list[Logged]]:
        """The events of each (stream, after, limit), in order. Sequences have no gaps, so a range is a limit."""
        ...

    def bell(self) -> Bell: ...

    def close(self) -> None:
        """Let go of everything but the connections, which are closed by those who asked for them."""
        ...

    def listen(self, rung: Callable[[frozenset[int]], None]) -> Doorbell:
        """Call ``rung`` on the running loop with the numbers of streams that have grown."""
        ...

    def scrub(self, *, rewrite: bool) -> bool:
        """Overwrite what was deleted wherever copies of it are left. Blocks, and appends wait meanwhile.

        ``rewrite`` also where that takes long. False where copies may be left: it would have taken long, or a reader
        prevents it for now. Raises ``OutboxError`` when the database cannot be written.
        """
        ...
