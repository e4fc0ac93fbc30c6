"""Whether the files of a SQLite database are still those that this process has open.

SQLite does not look. Where its write-ahead log was removed, commits go on into a file without a name, and everything
that was committed is gone with the processes that have it open; a database that was replaced is written to no more.
"""

from pathlib import Path

_PARTS = ("", "-wal", "-shm")

Identity = tuple[int, int]


class Presence:
    """The database, its write-ahead log and that one's index, as they were after the first commit."""

    def __init__(self, database: Path) -> None:
        self._paths = [database.with_name(database.name + part) for part in _PARTS]
        self._found: list[Identity | None] | None = None

    def note(self) -> None:
        """Remember what is there, once: while a connection is open that has written, for the two by the database's
        side come with the first connection and go with the last.
        """
        if self._found is None:
            self._found = [_identity(path) for path in self._paths]

    def check(self) -> None:
        """Raises ``OSError`` where one of those remembered was removed or replaced."""
        for path, before in zip(self._paths, self._found or (), strict=False):
            if _identity(path) != before:
                raise OSError(None, f"{path.name} was removed or replaced while it was in use")


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
