"""Notifies dispatchers of appends within microseconds, by datagrams between the processes of one machine.

A ring is a hint. It may be lost, doubled or late; the dispatcher's sweep finds what no ring announced. It carries the
appended records if they are small, which saves a read: reading takes a switch to another thread.
"""

import asyncio
import errno
import hashlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from relay.errors import OutboxError
from relay.outbox.records import Growth, Record
from relay.outbox.sqlite.rows import SEPARATOR, columns, keyed_records

_LONGEST_PATH = 100
"""Bytes. The kernel allows 107 for a socket's path, some systems 103."""
_RECEIVE_BUFFER = 1 << 20
_LONGEST_MESSAGE = 1 << 16
"""Bytes. A longer message carries only the streams' numbers."""


def directory(database: Path) -> Path:
    """The directory with the sockets of all listeners to this database: short, and open to this user only.

    Raises ``OutboxError`` if it cannot be created, or another user has created it.
    """
    name = f"speech-relay-{os.getuid()}"
    place = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(place)) > _LONGEST_PATH - 36:
        place = Path("/tmp") / name  # noqa: S108 - checked below: it must be ours and closed to others
    for part in (place, place / hashlib.sha256(os.fsencode(database.resolve())).hexdigest()[:16]):
        try:
            part.mkdir(mode=0o700, exist_ok=True)
            found = part.lstat()
        except OSError as error:
            raise OutboxError(f"doorbell {part}: {error.strerror}: set TMPDIR to a directory for it") from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise OutboxError(f"doorbell {part}: must be a directory that only this user may enter: remove it")
    return part


def anybody_listens(database: Path) -> bool:
    """Whether a process of this user, on this machine, listens to this database. Raises as ``directory`` does."""
    return any(map(_listens, directory(database).iterdir()))


def _listens(doorbell: Path) -> bool:
    """Whether the socket was left behind by a process that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        try:
            caller.connect(os.fspath(doorbell))
        except OSError:
            return False
    return True


class DatagramBell:
    """Rings every listener's socket, each from a socket of its own: unread data counts against the sender's buffer, and
    one hung listener would leave the others no room (Linux, unix(7))."""

    def __init__(self, database: Path) -> None:
        self._directory = str(directory(database))
        self._sockets: dict[str, socket.socket] = {}

    def ring(self, growth: Growth) -> None:
        """Notify every listener that these streams have grown. Never blocks, never raises."""
        message = _message(growth)
        with suppress(OSError):
            listeners = os.listdir(self._directory)  # noqa: PTH208 - every append waits for it
            for gone in self._sockets.keys() - listeners:
                self._sockets.pop(gone).close()
            for listener in listeners:
                self._send(message, growth, listener)

    def _send(self, message: bytes, growth: Growth, listener: str) -> None:
        path = f"{self._directory}/{listener}"
        if (own := self._sockets.get(listener)) is None:
            own = self._sockets[listener] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            own.setblocking(False)
        try:
            own.sendto(message, path)
        except ConnectionRefusedError:  # its process died and could not clean up
            with suppress(OSError):
                Path(path).unlink()
        except OSError as error:
            # else its buffer is full, or it has just closed
            if error.errno == errno.EMSGSIZE:  # systems differ in the maximum size of a datagram
                with suppress(OSError):
                    own.sendto(_numbers(growth), path)

    def close(self) -> None:
        while self._sockets:
            self._sockets.popitem()[1].close()


class DatagramDoorbell:
    """This process's socket. Rings go to ``rung``, on the loop that was running at the start."""

    def __init__(self, database: Path, rung: Callable[[Growth], None]) -> None:
        self._rung = rung
        self._loop = asyncio.get_running_loop()
        self._path = directory(database) / f"{os.getpid()}-{os.urandom(4).hex()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket.bind(os.fspath(self._path))
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(256):
                # one by one: another may be lost between two of them
                if growth := _growth(self._socket.recv(_LONGEST_MESSAGE)):
                    self._rung(growth)

    def close(self) -> None:
        """Stop listening. May be called more than once."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        with suppress(FileNotFoundError):
            self._path.unlink()


def _message(growth: Growth) -> bytes:
    rows = [columns(stream, record) for stream, records in growth.items() for record in records]
    bodies = [record.body for records in growth.values() for record in records]
    if sum(map(len, bodies)) < _LONGEST_MESSAGE:
        message = SEPARATOR.join([json.dumps([list(growth), rows]).encode(), *bodies])
        if len(message) <= _LONGEST_MESSAGE:
            return message
    return _numbers(growth)


def _numbers(growth: Growth) -> bytes:
    return json.dumps([list(growth), []]).encode()


def _growth(message: bytes) -> dict[int, list[Record]]:
    """Decode a message; empty if another version of the relay sent it."""
    try:
        head, *bodies = message.split(SEPARATOR)
        streams, rows = json.loads(head)
        growth: dict[int, list[Record]] = {stream: [] for stream in streams}
        for stream, record in keyed_records(rows, bodies):
            growth[stream].append(record)
    except (ValueError, TypeError, LookupError):
        return {}
    return growth
