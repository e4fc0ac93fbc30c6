"""Copies a whole log to another database, between SQLite and PostgreSQL in either direction.

Rows are copied table by table in the order of their keys, in steps of a few thousand. The transaction of each step also
records how far the copy has come, so that one which was killed continues there. Until the copy is finished, the target
has a version that no process opens. At the end both sides are read once more, and compared. Nothing else writes to the
source meanwhile: the last transaction of the copy is that of a log which stood still.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relay.clock import Clock
from relay.errors import NameTaken, OutboxError
from relay.outbox.database import Database
from relay.outbox.failure import broken, words
from relay.outbox.opening import attended, holds_log, log_clock, log_file, open_database, shown
from relay.outbox.schema import METADATA, REVISION, duties, identity, processes, writers
from relay.outbox.upgrade import UNFINISHED

PROCESS_STATE = frozenset({processes.name, duties.name})
"""Tables about the relay's processes, which do not move with the log."""

COPIED = tuple(
    METADATA.tables[name] for name in sorted(METADATA.tables) if name not in PROCESS_STATE and name != identity.name
)
"""The tables whose rows are copied, in this order. The identity is copied at the end."""

_STEP_ROWS, _STEP_BYTES = 2000, 4 << 20
"""Maximum of rows, and about the maximum of bytes, in a transaction."""
_FETCHED = 100
"""Rows that are read from a server at once: 26 MB at most."""
_SILENT_MS = 6_000
"""A process that has said nothing for so long does not run."""

# In the target only, and only until the copy is finished.
_position = sa.Table(
    "unfinished_copy",
    sa.MetaData(),
    sa.Column("source", sa.Text, nullable=False, comment="the identity of the log that is copied"),
    sa.Column("place", sa.Text, nullable=False, comment="the table in progress; those before it are complete"),
    sa.Column(
        "after", sa.LargeBinary, nullable=False, comment="the key of its last row, as JSON; empty before the first"
    ),
    sa.Column("rows", sa.BigInteger, nullable=False, comment="how many rows that were"),
)
_version = sa.table("alembic_version", sa.column("version_num"))


@dataclass(frozen=True, slots=True)
class Contents:
    """The rows of a table."""

    rows: int
    checksum: str
    """The sum of a hash of each row, whatever their order."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a copy."""

    identity: str
    """The log's, which both databases have now."""
    resumed: bool
    """Whether an interrupted copy was continued."""
    tables: dict[str, Contents]


Progress = Callable[[str, int, int], None]
"""Is called after each step with the table, its rows so far, and all of its rows."""


def copy_log(source_url: str, target_url: str, clock: Clock, progress: Progress) -> Copied:
    """Copy the log of one ``outbox.url`` to another one. Blocks.

    A copy that was interrupted is continued. Raises ``OutboxError`` if a relay uses one of the logs, if the target
    holds anything but an interrupted copy of this log, or if its rows are not those of the source at the end.
    """
    if source_url == target_url or (log_file(source_url) is not None and log_file(source_url) == log_file(target_url)):
        raise OutboxError("--from and --to are the same log")
    if not holds_log(source_url):
        raise OutboxError(f"outbox {log_file(source_url) or shown(source_url)}: there is no log to copy")
    for url in (source_url, target_url):
        if attended(url):
            raise _in_use(str(log_file(url) or shown(url)))
    with ExitStack() as stack:
        source, reader = _opened(source_url, stack)
        target, writer = _opened(target_url, stack, unfinished=True)
        with _usable(source):
            stack.enter_context(source.standstill(reader))
        return _Copy(source, reader, target, writer, progress).run(clock)


class _Copy:
    def __init__(
        self,
        source: Database,
        reader: sa.Connection,
        target: Database,
        writer: sa.Connection,
        progress: Progress,
    ) -> None:
        self._source, self._reader = source, reader
        self._target, self._writer = target, writer
        self._progress = progress

    def run(self, clock: Clock) -> Copied:
        with _usable(self._source):
            _refuse_if_used(self._source, self._reader, clock)
            log = self._reader.execute(sa.select(identity.c.id)).scalar_one()
            last = dict(self._source.last_numbers(self._reader))
        with _usable(self._target), self._target.transaction(self._writer, alone=True):
            resumed = self._begin(log, clock)
            place, after, rows = self._writer.execute(
                sa.select(_position.c.place, _position.c.after, _position.c.rows)
            ).one()
        for table in COPIED:
            if table.name > place:
                self._copy(table, [], 0)
            elif table.name == place:
                self._copy(table, json.loads(after or b"[]"), rows)
        with _usable(self._target), self._target.standstill(self._writer):
            tables = {table.name: self._compared(table) for table in COPIED}
            for table in COPIED:
                if (numbers := table.autoincrement_column) is not None:
                    highest = self._writer.execute(sa.select(sa.func.max(numbers))).scalar() or 0
                    last[table.name] = max(highest, last.get(table.name, 0))
            self._target.number_after(self._writer, last)
            self._writer.execute(sa.update(identity).values(id=log))
            self._writer.execute(sa.update(_version).values(version_num=REVISION))
            _position.drop(self._writer)
        return Copied(log, resumed, tables)

    def _begin(self, log: str, clock: Clock) -> bool:
        """Whether a copy was begun before. Raises ``OutboxError`` if the target holds anything else."""
        place = self._target.place
        if sa.inspect(self._writer).has_table(_position.name):
            if self._writer.execute(sa.select(_position.c.source)).scalar_one() != log:
                raise OutboxError(f"outbox {place} holds an unfinished copy of another log: name an empty database")
            return True
        if self._writer.execute(sa.select(identity.c.id)).scalar_one() == log:
            raise OutboxError(f"outbox {place} holds this log already: there is nothing to copy")
        _refuse_if_used(self._target, self._writer, clock)
        for table in COPIED:
            if self._writer.execute(sa.select(sa.exists(sa.select(table)))).scalar_one():
                raise OutboxError(f"outbox {place} holds a log already ({table.name} has rows): name an empty database")
        _position.create(self._writer)
        self._writer.execute(sa.insert(_position).values(source=log, place="", after=b"", rows=0))
        self._writer.execute(sa.update(_version).values(version_num=UNFINISHED))
        return False

    def _copy(self, table: sa.Table, after: Sequence[Any], rows: int) -> None:
        """Copy the rows after this key, of which there were so many before."""
        key = [column.name for column in table.primary_key]
        with _usable(self._source, table):
            total = self._reader.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        for step in _steps(self._rows_after(table, after)):
            rows += len(step)
            last = json.dumps([step[-1][name] for name in key]).encode()
            with _usable(self._target, table), self._target.transaction(self._writer, alone=True):
                self._writer.execute(sa.insert(table), step)
                self._writer.execute(sa.update(_position).values(place=table.name, after=last, rows=rows))
            self._progress(table.name, rows, total)

    def _rows_after(self, table: sa.Table, after: Sequence[Any]) -> Iterator[dict[str, Any]]:
        key = table.primary_key.columns
        wanted = sa.select(table).order_by(*key)
        if after:
            wanted = wanted.where(sa.tuple_(*key) > sa.tuple_(*after, types=[column.type for column in key]))
        with _usable(self._source, table):
            found = self._reader.execute(wanted.execution_options(yield_per=_FETCHED))
            for row in found.mappings():
                yield dict(row)

    def _compared(self, table: sa.Table) -> Contents:
        """The rows in the target. Raises ``OutboxError`` if they are not those of the source."""
        with _usable(self._source, table):
            expected = _contents(self._reader, table, as_stored_by=self._writer.dialect)
        found = _contents(self._writer, table, as_stored_by=self._writer.dialect)
        if found != expected:
            raise OutboxError(
                f"the copy of table {table.name} is not the original: {found.rows} rows in {self._target.place}, "
                f"{expected.rows} in {self._source.place}; one of them was written to since the copy began: copy again "
                "to an empty database"
            )
        return found


def _opened(url: str, stack: ExitStack, *, unfinished: bool = False) -> tuple[Database, sa.Connection]:
    database = open_database(url, unfinished=unfinished)
    stack.callback(database.close)
    try:
        for name in ("relay", "copy"):
            database.reserve(name)
    except NameTaken:
        raise _in_use(database.place) from None
    with _usable(database):
        connection = database.connect_writer()
    stack.callback(connection.close)
    return database, connection


def _refuse_if_used(database: Database, connection: sa.Connection, clock: Clock) -> None:
    now = log_clock(database, clock).now_ms()
    writing = sa.exists().where(writers.c.lease_until > now)
    running = sa.exists().where(processes.c.stopped_at.is_(None), processes.c.seen_at > now - _SILENT_MS)
    if connection.execute(sa.select(writing | running)).scalar_one():
        raise _in_use(database.place)


def _in_use(place: str) -> OutboxError:
    return OutboxError(f"outbox {place}: a relay uses it, or did a few seconds ago: stop it, and copy then")


def _steps(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    step: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        step.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str | bytes))
        if len(step) == _STEP_ROWS or size >= _STEP_BYTES:
            yield step
            step, size = [], 0
    if step:
        yield step


def _contents(connection: sa.Connection, table: sa.Table, *, as_stored_by: sa.Dialect) -> Contents:
    """Read every row. Texts count as this kind of database stores them: PostgreSQL has no NUL in them."""
    stored = [column.type.dialect_impl(as_stored_by).bind_processor(as_stored_by) for column in table.columns]
    rows = total = 0
    for row in connection.execute(sa.select(table).execution_options(yield_per=_FETCHED)):
        values = [to(value) if to and isinstance(value, str) else value for to, value in zip(stored, row, strict=True)]
        total += int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=16).digest())
        rows += 1
    return Contents(rows, f"{total % (1 << 128):032x}")


@contextmanager
def _usable(database: Database, table: sa.Table | None = None) -> Iterator[None]:
    """Raise ``OutboxError`` for an error of this database."""
    try:
        yield
    except (sa.exc.DBAPIError, OSError) as error:
        if table is not None and isinstance(error, sa.exc.DBAPIError) and "decode" in str(error.orig):
            # the driver's words repeat the text
            raise OutboxError(f"outbox {database.place}: a text in table {table.name} is not UTF-8") from error
        if unusable := broken(database.place, error):
            raise unusable from error
        if isinstance(error, sa.exc.DBAPIError) and table is not None:
            said = words(error.orig)
            raise OutboxError(f"outbox {database.place}: table {table.name} cannot take a row: {said}") from error
        raise
