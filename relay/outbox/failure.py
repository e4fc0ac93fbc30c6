"""Classifies a database's errors: the log cannot be used now, or a statement was wrong."""

from sqlalchemy import exc

from relay.errors import OutboxError

_MISTAKES = (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError)
_CURES = {
    "locked": "another process holds it, and releases it when it ends",
    "disk is full": "free some space",
    "No space left": "free some space",
    "No such file": "it was removed while it was in use; stop the relay, restore a backup, start again",
    "disk I/O error": "check the disk, and that there is space left on it",
    "readonly": "give this user the right to write to the file and its directory",
    "unable to open": "check that the file and its directory may be read and written",
    "not a database": "the file holds something else or is damaged; move it away or restore a backup",
    "malformed": "the file is damaged; move it away or restore a backup",
    "removed or replaced": "stop the relay; where the database itself is gone, restore a backup; then start again",
}


def broken(place: str, error: Exception) -> OutboxError | None:
    """The message for the operator if the log at ``place`` cannot be used; None for other errors.

    Only the database's own words are repeated, never the statement or its parameters: they contain what people said.
    """
    if isinstance(error, exc.DBAPIError):
        if isinstance(error, _MISTAKES):
            return None
        words = str(error.orig)
    elif isinstance(error, OSError):
        words = error.strerror or str(error)
    else:
        return None
    cure = next((f": {cure}" for sign, cure in _CURES.items() if sign in words), "")
    return OutboxError(f"outbox {place}: {words}{cure}")
