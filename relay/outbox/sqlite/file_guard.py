"""Checks that a SQLite database's files are still those that this process has open.

SQLite does not check. If its write-ahead log was removed, commits continue into a file without a name, and everything
committed is lost when the processes that have it open exit; a replaced database is no longer written.
"""

from pathlib import Path

_PARTS = ("", "-wal", "-shm")

Identity = tuple[int, int]


class FileGuard:
    """The database, its write-ahead log and that log's index, as they were after the first commit."""

    def __init__(self, database: Path) -> None:
        self._paths = [database.with_name(database.name + part) for part in _PARTS]
        self._found: list[Identity | None] | None = None

    def note(self) -> None:
        """Remember the files, once, while a connection that has written is open: the two beside the database appear
        with the first connection and disappear with the last.
        """
        if self._found is None:
            self._found = [_identity(path) for path in self._paths]

    def check(self) -> None:
        """Raises ``OSError`` if one of those remembered was removed or replaced."""
        for path, before in zip(self._paths, self._found or (), strict=False):
            if _identity(path) != before:
                raise OSError(None, f"{path.name} was removed or replaced while it was in use")


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
