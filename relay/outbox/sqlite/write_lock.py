"""A fair queue for a file's database, across processes.

SQLite itself waits for its write lock by sleeping in growing, unfair steps: with three writing processes that made the
slowest appends 15 to 30 times slower. The kernel queues ``flock`` waiters in order, and releases the lock of a killed
process.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from relay.private_files import give_to_owner_of, open_private

LONGEST_WAIT_S = 5.0
"""Maximum seconds to wait for the lock. Only a process that is frozen in mid-transaction takes that long."""
_GLANCES = 10
_GLANCE_SECONDS = 0.0001
"""Interval between tries for the lock before queueing: most transactions end in half a millisecond. Queueing takes a
thread, which in a busy process takes longer than that to start."""


def open_lock(path: Path) -> BinaryIO:
    """Open a lock file, which only the log's owner may open: any process that can open it can hold the lock
    indefinitely. Its name is the log's, with a suffix."""
    file = os.fdopen(open_private(path, os.O_WRONLY | os.O_APPEND), "ab")
    give_to_owner_of(path.with_suffix(""), file.fileno())
    return file


class WriteLock:
    """The lock file. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_lock(path)
        self._mutex = threading.Lock()
        self._queued = False
        self._wanted = False
        self._closed = False
        self._granted = threading.Event()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the lock. Raises ``TimeoutError`` if it is not released in time, ``OSError`` if it cannot be
        acquired."""
        self._take()
        while self._removed():  # the next process creates a new file, and would not wait for this one
            fcntl.flock(self._file, fcntl.LOCK_UN)
            reopened = open_lock(self._path)
            self._file.close()
            self._file = reopened
            self._take()
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _removed(self) -> bool:
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return True

    def _take(self) -> None:
        with self._mutex:
            if not self._queued:
                if self._glanced():
                    return
                self._queued = True
                threading.Thread(target=self._queue, name="outbox-turn", daemon=True).start()
            self._wanted = True
        self._granted.wait(LONGEST_WAIT_S)
        with self._mutex:
            self._wanted = False
            if self._granted.is_set():
                self._granted.clear()
                return
        raise TimeoutError(None, f"locked for {LONGEST_WAIT_S:g} s")

    def _glanced(self) -> bool:
        for _ in range(_GLANCES):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_GLANCE_SECONDS)
            else:
                return True
        return False

    # A wait for flock cannot be cancelled, so it runs on another thread; a lock acquired too late is released.
    def _queue(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._mutex:
            self._queued = False
            if self._closed:
                self._file.close()
            elif self._wanted:
                self._granted.set()
            else:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            if not self._queued:
                self._file.close()
