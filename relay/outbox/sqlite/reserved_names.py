"""Names of a database in a file that one process has at a time: lock files beside it (``….NAME``)."""

import fcntl
import os
import time
from pathlib import Path
from typing import BinaryIO

from relay.errors import NameTaken
from relay.outbox.sqlite.write_lock import open_lock

_LOOKED_AT_S = 0.01
"""After which a name is free that another process has only looked at."""


def reserve(database: Path, name: str) -> BinaryIO:
    """Take the name until the file is closed, or the process ends. Raises ``NameTaken`` while another process has it,
    and ``OSError``."""
    lock = open_lock(_lock_file(database, name))
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOKED_AT_S)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise _taken(database) from None
    return lock


def require_free(database: Path, name: str) -> None:
    """Require that no process has the name now. Changes nothing. Raises ``NameTaken``."""
    try:
        lock = os.open(_lock_file(database, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # none has had it yet; or the reservation will say why it cannot be had
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(database) from None
    finally:
        os.close(lock)


def _lock_file(database: Path, name: str) -> Path:
    return database.with_name(f"{database.name}.{name}")


def _taken(database: Path) -> NameTaken:
    return NameTaken(f"outbox {database}: another relay has it: stop that one, or give this one its own outbox.url")
