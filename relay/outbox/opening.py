"""Opens the database that ``outbox.url`` names: the one place that knows which databases there are."""

from pathlib import Path

import sqlalchemy as sa

from relay.errors import OutboxError
from relay.outbox.database import Database
from relay.outbox.sqlite.database import SQLite
from relay.outbox.sqlite.doorbell import anybody_listens


def open_database(url: str) -> Database:
    """Open it, creating or upgrading its tables. Blocks. Raises ``OutboxError`` if it cannot be used."""
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite":
        raise OutboxError(f"outbox.url names {parsed.get_backend_name()}: only sqlite:///path/to/relay.db is supported")
    if parsed.database in (None, "", ":memory:") or parsed.query:
        raise OutboxError("outbox.url must name a file, and nothing else: write sqlite:///path/to/relay.db")
    return SQLite(str(parsed.database))


def log_file(url: str) -> Path:
    """The file that holds, or will hold, the log of this ``outbox.url``."""
    return Path(_parsed(url).database or "").absolute()


def attended(url: str) -> bool:
    """Whether a dispatcher on this machine sends the log of this ``outbox.url``.

    It is detected by the doorbell that it listens to: a dispatcher of another user is not seen, nor one with its own
    directory for temporary files, as in another container. Raises ``OutboxError`` if that directory cannot be used.
    """
    return anybody_listens(log_file(url))


def _parsed(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise OutboxError("outbox.url is not the URL of a database: write sqlite:///path/to/relay.db") from error
