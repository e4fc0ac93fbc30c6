"""Classifies a database's errors: the log cannot be used now, or a statement was wrong."""

import errno

from sqlalchemy import exc

from relay.errors import OutboxError

_MISTAKES = (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError)
_NO_FOLDER = (errno.EEXIST, errno.ENOTDIR)
_OPERATORS = ("42501", "3F000")
"""SQL's codes of a missing right and a missing schema, which are no mistakes of ours."""
_NO_PARAMETER = "invalid connection option"
"""The driver's words for a parameter of the URL that it does not know, which is the operator's mistake."""
GRANT = "grant it SELECT, INSERT, UPDATE and DELETE on the tables, USAGE on the sequences, and EXECUTE on the functions"
"""The cure for a user who may not do to the tables what a process of the relay does."""
UPGRADE = "run `speech-relay migrate` as the user who owns them"
"""The cure for a user who may not upgrade the tables."""
NO_SCHEMA = "create the schema that the user's search_path names, or name another there"
_BACKUP = "move it away or restore a backup, and move what ends in -wal and -shm away with it"
"""A write-ahead log that is left beside another database is applied to it, and damages it."""
_CONNECTIONS = "raise the server's max_connections; each room takes one, and the relay up to seven"
_CURES = {
    "no schema has been selected": NO_SCHEMA,
    "failed: No such file": "start the server, or correct outbox.url",
    "locked": "another process holds it, and releases it when it ends",
    "disk is full": "free some space",
    "No space left": "free some space",
    "No such file": "it was removed while it was in use; stop the relay, restore a backup, start again",
    "disk I/O error": "check the disk, and that there is space left on it",
    "Permission denied": "run this as the user of the relay, or correct outbox.url",
    "name of its directory": "move that away, or correct outbox.url",
    "File name too long": "correct outbox.url",
    "Read-only file system": "name a place that can be written to in outbox.url",
    "readonly": "give this user the right to write to the file and its directory",
    "unable to open": "check that the file and its directory may be read and written",
    "not a database": f"the file holds something else or is damaged; {_BACKUP}",
    "malformed": f"the file is damaged; {_BACKUP}",
    "Connection refused": "start the server, or correct outbox.url",
    "timeout expired": "look whether the server hangs, or correct outbox.url",
    "could not translate host name": "correct outbox.url",
    "failed to resolve host": "correct outbox.url",
    _NO_PARAMETER: "correct the parameters of outbox.url",
    "invalid URI query parameter": "correct the parameters of outbox.url",
    "invalid sslmode value": "correct the parameters of outbox.url",
    "root certificate file": "name the file of the server's authority in outbox.url, as sslrootcert=/path/ca.pem",
    "certificate verify failed": "correct sslrootcert in outbox.url",
    "no password supplied": "set PGPASSWORD, or write a ~/.pgpass",
    '" does not exist': "create the database or the user, or correct outbox.url",
    "authentication failed": "correct the user and password in outbox.url, PGPASSWORD or ~/.pgpass",
    "could not extend file": "free some space",
    "too many clients": _CONNECTIONS,
    "remaining connection slots": _CONNECTIONS,
    "too many connections for": "raise that CONNECTION LIMIT; each room takes one, and the relay up to seven",
    "pg_hba.conf": "allow this host, user and database in the server's pg_hba.conf",
    "permission denied for table": GRANT,
    "permission denied for sequence": GRANT,
    "permission denied for function": GRANT,
    "must be owner of": UPGRADE,
    "read-only, as a standby": "name the primary in outbox.url, or every server with target_session_attrs=read-write; "
    "if this is the primary, turn its default_transaction_read_only off",
    "session is read-only": "promote a standby, or name the primary in outbox.url",
    "row-level security": "turn that off for the tables, or give the user of outbox.url BYPASSRLS",
    "does not support SSL": "turn on TLS in the server, or correct sslmode in outbox.url",
    "permission denied for schema": "give the user of outbox.url the right to create tables there",
    "lock timeout": "another process holds it, and releases it when it ends; `speech-relay check` says if commits hang",
    "statement timeout": "give it seconds; sessions that exist keep the old one: end those, or start the process again",
    "removed or replaced": "stop the relay; where the database itself is gone, restore a backup; then start again",
}


def broken(place: str, error: Exception) -> OutboxError | None:
    """The message for the operator if the log at ``place`` cannot be used; None for other errors.

    Only the database's own words are repeated, never the statement or its parameters: they contain what people said.
    """
    if isinstance(error, exc.DBAPIError):
        operators = getattr(error.orig, "sqlstate", None) in _OPERATORS or str(error.orig).startswith(_NO_PARAMETER)
        if isinstance(error, _MISTAKES) and not operators:
            return None
        return OutboxError(f"outbox {place}: {words(error.orig)}")
    if isinstance(error, OSError):
        said = "a file has the name of its directory" if error.errno in _NO_FOLDER else error.strerror or str(error)
        return OutboxError(f"outbox {place}: {_cured(said)}")
    return None


def words(error: BaseException | None) -> str:
    """The driver's message with its cure, without the details, which PostgreSQL takes from the row."""
    if primary := getattr(getattr(error, "diag", None), "message_primary", None):
        return _cured(str(primary))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # psycopg lists every address that was tried
    return _cured(lines[-1] if lines[0].startswith("Multiple connection attempts") else lines[0])


def _cured(said: str) -> str:
    return said + next((f": {cure}" for sign, cure in _CURES.items() if sign in said), "")
