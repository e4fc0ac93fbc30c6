"""What SQLite and PostgreSQL do differently: opening, taking a turn to write, and the statements that are hot."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import sqlalchemy as sa

from relay.outbox.records import Append, Attempt, Growth, Record, Settlement


class Bell(Protocol):
    """Tells the dispatchers that streams have grown. Never blocks, never raises: a lost ring only costs time."""

    def ring(self, growth: Growth) -> None: ...

    def close(self) -> None: ...


class Doorbell(Protocol):
    """A listener to the rings of every process, until it is closed."""

    def close(self) -> None: ...


AT_ONCE = 256
"""Records in one statement at most."""


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

    def turn(self, connection: sa.Connection) -> AbstractContextManager[object]:
        """A turn to write. A statement in it is a transaction by itself."""
        ...

    def transaction(self, connection: sa.Connection) -> AbstractContextManager[object]:
        """A turn in which all is committed at the end, or rolled back on an exception."""
        ...

    def append(self, connection: sa.Connection, appends: Sequence[Append], now: int) -> bool:
        """Write the records, close the streams that they close, make idle lanes due.

        False, and nothing was done, where the log is not as one of the writers believes: another has taken the stream
        over, it was closed, or it does not end where the records go on. One statement, for at most ``AT_ONCE`` records.
        """
        ...

    def settle(self, connection: sa.Connection, settlements: Sequence[Settlement], now: int) -> bool:
        """Write the cursors of lanes, and their attempts; False, and nothing was done, where one is not held any more.

        One statement. What only some settlements ask for beside that is left to the caller.
        """
        ...

    def let_go(self, connection: sa.Connection, settlements: Sequence[Settlement]) -> None:
        """End the leases of these lanes until their ``next_at``, and write when and how their heads fail."""
        ...

    def record_attempts(self, connection: sa.Connection, attempts: Sequence[Attempt]) -> None: ...

    def renew(self, connection: sa.Connection, lanes: Sequence[tuple[int, int]], lease_until: int) -> None: ...

    def release(self, connection: sa.Connection, lanes: Sequence[tuple[int, int]], now: int) -> None: ...

    def read(self, connection: sa.Connection, wants: Sequence[tuple[int, int, int]]) -> list[list[Record]]:
        """The events of each (stream, after, limit), in order. Sequences have no gaps, so a range is a limit."""
        ...

    def bell(self) -> Bell: ...

    def close(self) -> None:
        """Let go of everything but the connections, which are closed by those who asked for them."""
        ...

    def listen(self, rung: Callable[[Growth], None]) -> Doorbell:
        """Call ``rung`` on the running loop with what has grown."""
        ...

    def scrub(self, *, rewrite: bool) -> bool:
        """Overwrite what was deleted wherever copies of it are left. Blocks, and appends wait meanwhile.

        ``rewrite`` also where that takes long. False where copies may be left: it would have taken long, or a reader
        prevents it for now. Raises ``OutboxError`` when the database cannot be written.
        """
        ...
