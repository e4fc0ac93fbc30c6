"""Opens the database that ``outbox.url`` names: the one place that knows which databases there are."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import sqlalchemy as sa

from relay.clock import Clock, SystemClock
from relay.errors import OutboxError
from relay.outbox.database import Database
from relay.outbox.failure import GRANT, UPGRADE, broken
from relay.outbox.schema import METADATA, REVISION
from relay.outbox.sqlite.database import SQLite, require_free, require_log
from relay.outbox.sqlite.doorbell import anybody_listens
from relay.outbox.upgrade import require_known

_FORMS = "sqlite:///path/to/relay.db or postgresql://user@host/database"
_NO_DRIVER = (
    "outbox.url names PostgreSQL, whose driver is not installed: pip install '.[postgres]' in a clone of speech-relay"
)


def open_database(
    url: str,
    *,
    unfinished: bool = False,
    or_newer: bool = False,
    breakable: Callable[[Callable[[], None]], object] | None = None,
) -> Database:
    """Open it, creating or upgrading its tables. Blocks. Raises ``OutboxError`` if it cannot be used.

    ``unfinished``: it may hold an unfinished copy, to go on with. ``or_newer``: its tables may be of a later version,
    and are left as they are. ``breakable`` is given what makes a server's opening fail at once, from another thread; to
    open a file takes some seconds at most.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "postgresql":
        _postgres_session()
        from relay.outbox.postgres.database import Postgres

        return Postgres(parsed, shown(url), unfinished=unfinished, or_newer=or_newer, breakable=breakable)
    if parsed.get_backend_name() != "sqlite":
        raise OutboxError(f"outbox.url names {parsed.get_backend_name()}: write {_FORMS}")
    if parsed.database in (None, "", ":memory:") or parsed.query:
        raise OutboxError("outbox.url must name a file, and nothing else: write sqlite:///path/to/relay.db")
    return SQLite(str(parsed.database), unfinished=unfinished, or_newer=or_newer)


async def opened_database(url: str, *, or_newer: bool = False) -> Database:
    """As :func:`open_database`, on a thread. Raises ``OutboxError`` if it cannot be used.

    If cancelled, break that off, wait for the thread and close: it must not keep creating files unattended.
    """
    break_off: list[Callable[[], None]] = []
    opening = asyncio.ensure_future(
        asyncio.to_thread(open_database, url, or_newer=or_newer, breakable=break_off.append)
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        for each in break_off:
            each()
        with suppress(OutboxError):
            (await opening).close()
        raise


def client_variables(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that the client of this database reads."""
    if not url.startswith("postgresql:"):
        return {}
    return {name: value for name, value in environ.items() if name.startswith("PG")}


def log_clock(database: Database, clock: Clock) -> Clock:
    """The clock for the times that processes compare in the log: the database's own, if several hosts may use it.

    A clock that is not the system's is left as it is: a test's, or that of another part of this process.
    """
    return database.clock if database.clock is not None and isinstance(clock, SystemClock) else clock


def shown(url: str) -> str:
    """The ``outbox.url`` without what may grant access: user, password and parameters."""
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return url
    return sa.URL.create("postgresql", host=parsed.host, port=parsed.port, database=parsed.database).render_as_string()


def without_password(url: str) -> str:
    """The ``outbox.url`` as it was written, but for its passwords."""
    scheme, _, rest = url.partition("://")
    if scheme != "postgresql":
        return url
    address, _, query = rest.partition("?")
    user, at, place = address.rpartition("@")
    parameters = [each for each in query.split("&") if each.partition("=")[0] not in ("password", "sslpassword")]
    return f"{scheme}://{user.partition(':')[0]}{at}{place}" + (f"?{'&'.join(parameters)}" if any(parameters) else "")


def log_file(url: str) -> Path | None:
    """The file that holds, or will hold, the log of this ``outbox.url``; None if it is on a server."""
    parsed = _parsed(url)
    return Path(parsed.database or "").absolute() if parsed.get_backend_name() == "sqlite" else None


def attended(url: str) -> bool:
    """Whether a dispatcher sends the log of this ``outbox.url``. Raises ``OutboxError`` if that is unknown.

    It is detected by the doorbell that it listens to. Of a file, a dispatcher of another user is not seen, nor one on
    another machine or with its own directory for temporary files, as in another container.
    """
    if (file := log_file(url)) is None:
        return bool(_postgres_session().anybody_listens(_parsed(url), shown(url)))
    return anybody_listens(file)


SOLE = "relay"
"""The name of the one process that may deliver from a log in a file."""


def require_no_other(url: str) -> None:
    """Require that no other process delivers from a log in a file. Changes nothing. Raises ``NameTaken``."""
    if (file := log_file(url)) is not None:
        require_free(file, SOLE)


def holds_log(url: str) -> bool:
    """Whether there is a log at this ``outbox.url``. Creates nothing. Raises ``OutboxError`` if that is unknown."""
    if (file := log_file(url)) is None:
        return bool(_postgres_session().has_tables(_parsed(url), shown(url)))
    try:
        return file.stat().st_size > 0  # an empty file is a valid, new database
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # a folder of another user's, a name that is too long
        raise broken(str(file), error) or error from None


def may_create(url: str) -> bool:
    """Whether the log's tables may be created on the server that this ``outbox.url`` names. Raises ``OutboxError``."""
    return bool(_postgres_session().may_create_tables(_parsed(url), shown(url)))


def exposures(url: str) -> list[str]:
    """What other roles and networks could use against the log on this server, each with its cure; empty for a file."""
    if log_file(url) is not None:
        return []
    _postgres_session()
    from relay.outbox.postgres.roles import exposures as of_server

    return of_server(_parsed(url), shown(url))


def require_usable(url: str) -> None:
    """Require that a process can run on the log that is there. Changes nothing. Raises ``OutboxError``."""
    if (file := log_file(url)) is not None:
        require_log(file)
        return
    session, parsed, place = _postgres_session(), _parsed(url), shown(url)
    found = session.version_found(parsed, place)
    require_known(found, place)
    if found != REVISION and not session.may_upgrade(parsed, place):
        raise OutboxError(f"outbox {place}: its user does not own the tables of version {found}; {UPGRADE}")
    if not session.may_write(parsed, place, sorted(METADATA.tables)):
        raise OutboxError(f"outbox {place}: its user may only read; {GRANT}")


def require_commits(url: str) -> None:
    """Require that the server of this ``outbox.url`` completes a commit. Changes nothing. Raises ``OutboxError``."""
    _postgres_session().require_commits(_parsed(url), shown(url))


def _postgres_session() -> ModuleType:
    """The module, with the driver installed: it is an extra, and slow to import."""
    try:
        from relay.outbox.postgres import session
    except ImportError as error:
        raise OutboxError(_NO_DRIVER) from error
    return session


def _parsed(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise OutboxError(f"outbox.url is not the URL of a database: write {_FORMS}") from error
    if parsed.host is not None and "%2f" in parsed.host.lower():  # the folder of a socket, as libpq writes it
        parsed = parsed.set(host=unquote(parsed.host))
    if parsed.get_backend_name() == "postgresql":
        try:
            parsed.set(drivername="postgresql+psycopg").get_dialect()().create_connect_args(parsed)
        except sa.exc.ArgumentError as error:
            raise OutboxError(f"outbox.url: correct its parameters host and port: {error}") from error
    return parsed
