"""Upgrades a database to the tables of this version."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from relay.errors import OutboxError
from relay.outbox.schema import METADATA, REVISION

if TYPE_CHECKING:
    from alembic.config import Config

UNFINISHED = f"{REVISION} unfinished"
"""The version of a log that is being copied to: no other process, of whatever version, opens it."""

_VERSION = sa.text("SELECT version_num FROM alembic_version")
MIGRATIONS = Path(__file__).parent / "migrations"


def is_current(connection: sa.Connection, *, or_newer: bool) -> bool:
    """Whether the database has the tables of this version. ``or_newer``: or those of a later one, as a process that
    runs while they are upgraded goes on with."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return False
    versions = connection.execute(_VERSION).scalars().all()
    return versions == [REVISION] or (or_newer and len(versions) == 1 and _is_newer(versions[0]))


def _is_newer(found: str) -> bool:
    return found.isdecimal() and int(found) > int(REVISION)


def upgrade(connection: sa.Connection, place: str, *, unfinished: bool = False, or_newer: bool = False) -> str | None:
    """Run the missing migrations in the connection's transaction, which must hold the write lock.

    Returns the version of the tables that it found, None if there were none. Raises ``OutboxError`` for a database that
    a newer version wrote, without ``or_newer``, or that is not the relay's; and for an unfinished copy, but for who
    finishes it.
    """
    found = revision(connection, place)
    if found == REVISION or (unfinished and found == UNFINISHED) or (or_newer and found and _is_newer(found)):
        return found
    require_known(found, place)
    # Importing Alembic takes a tenth of a second; a process that finds the tables up to date skips it.
    with _without_steps_in_the_log():
        from alembic import command

        config = _alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return found


@contextmanager
def _without_steps_in_the_log() -> Iterator[None]:
    """Alembic logs as it is imported and for each migration: in an agent, that would be in the agent's own log."""
    logger = logging.getLogger("alembic")
    before = logger.level
    logger.setLevel(max(logging.WARNING, before))
    try:
        yield
    finally:
        logger.setLevel(before)


def require_known(found: str | None, place: str) -> None:
    """Require tables that this version can use or upgrade: raises ``OutboxError`` for those that :func:`upgrade`
    refuses."""
    if found == UNFINISHED:
        raise OutboxError(
            f"outbox {place} holds an unfinished copy: finish it with `speech-relay outbox copy`, or remove it"
        )
    if found is None or found == REVISION:
        return
    from alembic.script import ScriptDirectory

    if found not in {script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()}:
        raise OutboxError(
            f"outbox {place} was written by a newer version of speech-relay (tables {found}, this version knows "
            f"{REVISION}): upgrade speech-relay, or restore a backup from before"
        )


def _alembic() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def revision(connection: sa.Connection, place: str) -> str | None:
    """The version of the tables; None if there are none. Raises ``OutboxError`` if they are of something else."""
    tables = sa.inspect(connection).get_table_names()
    if "alembic_version" in tables:
        versions = connection.execute(_VERSION).scalars().all()
        return only_version(versions, place, of_log=not METADATA.tables.keys().isdisjoint(tables))
    if tables:
        raise OutboxError(f"outbox {place} is the database of something else: name another one in outbox.url")
    return None


def only_version(versions: Sequence[str], place: str, *, of_log: bool) -> str | None:
    """The version, of what alembic_version holds; None without any, unless other tables of the log exist (``of_log``).

    Raises ``OutboxError`` where those could be of any version.
    """
    if len(versions) == 1:
        return versions[0]
    if not versions and not of_log:
        return None
    raise OutboxError(
        f"outbox {place}: its table alembic_version has {len(versions) or 'no'} rows instead of one, so the version of "
        f"the log is not known: restore a backup, or leave one row with that version (it is '{REVISION}' if this "
        "version of speech-relay was the last to use it)"
    )
