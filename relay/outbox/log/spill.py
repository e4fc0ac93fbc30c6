"""Events that wait for a database that is away, in private files that survive the process.

There is a file per stream: a line that says whose it is, then its records in order, each with its length and checksum.
What is written has reached the kernel, so that it survives the process, but not a power failure: it is not synced. Its
process has the file locked. What is left of a process that ended is appended by the next one that looks.
"""

import fcntl
import json
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from relay.errors import Fenced
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.reader import Reader
from relay.outbox.log.streams import Held, still_held
from relay.outbox.records import Append, Record
from relay.outbox.sqlite.rows import SEPARATOR, columns, keyed_records
from relay.private_files import DIRECTORY_MODE, open_private

_FRAME = struct.Struct(">II")
"""Length and CRC-32 of a record."""
_FORMAT = 1
"""Of these files. One that another version wrote is left to it."""
_SUFFIX = ".spill"
_LONGEST_HEADER = 4096
_BATCH_RECORDS, _BATCH_BYTES = 512, 4 << 20
"""Maximum of records, and about the maximum of bytes, that are read at once."""
_MEASURED_EVERY = 1.0
"""Seconds between two measurements of the folder."""

_log = logging.getLogger(__name__)


class SpillLimits(Protocol):
    """``outbox.spill`` of config.yaml."""

    @property
    def path(self) -> str: ...

    @property
    def max(self) -> int: ...


class SpillFile:
    """One stream's file, held by this process until it is removed or kept."""

    def __init__(self, path: Path, descriptor: int, folder: "SpillFolder", held: Held) -> None:
        self._path, self._descriptor, self._folder, self.held = path, descriptor, folder, held
        self._end = self._read_to = os.fstat(descriptor).st_size

    def rewind(self, header: int) -> None:
        """Read from the first record on, behind so many bytes."""
        self._read_to = header

    def skip(self, records: Sequence[Record]) -> None:
        """Go on behind these, which are the next ones."""
        self._read_to += sum(len(_framed(each)) for each in records)

    def add(self, records: Iterable[Record]) -> bool:
        """Write them behind the others; False, with nothing written, if they cannot be, or the folder is full."""
        data = b"".join(map(_framed, records))
        if not self._folder.has_room(len(data)):
            return False
        try:
            _write(self._descriptor, data)
        except OSError as error:
            _log.error("%s: %s", self._path, error.strerror)
            os.ftruncate(self._descriptor, self._end)
            return False
        self._end += len(data)
        return True

    def read(self, exactly: int | None = None) -> list[Record]:
        """The next records, by default a batch; none at the end, and behind a record that is damaged."""
        records: list[Record] = []
        size = 0
        while len(records) < (exactly or _BATCH_RECORDS) and (exactly or size < _BATCH_BYTES):
            head = os.pread(self._descriptor, _FRAME.size, self._read_to)
            if len(head) < _FRAME.size:
                break
            length, checksum = _FRAME.unpack(head)
            payload = os.pread(self._descriptor, length, self._read_to + _FRAME.size)
            if len(payload) < length or zlib.crc32(payload) != checksum:
                break
            records.append(_record(payload))
            self._read_to += _FRAME.size + length
            size += length
        return records

    def remove(self) -> None:
        """Its records are in the log, or never will be."""
        self._path.unlink(missing_ok=True)
        self._folder.removed(self)
        self.keep()

    def keep(self) -> None:
        """Leave it to the next process."""
        os.close(self._descriptor)


class SpillFolder:
    """The files of one log in ``outbox.spill.path``. ``log`` is the log's identity."""

    def __init__(self, limits: SpillLimits, log: str) -> None:
        self._path, self._limit, self._identity = Path(limits.path).absolute(), limits.max, log
        self._size = 0
        self._measured_at: float | None = None
        self._told = False
        self._begun: set[SpillFile] = set()
        """What this process has in the folder."""

    def begin(self, held: Held, records: Iterable[Record]) -> SpillFile | None:
        """A file with these records of a stream; None if it cannot be written, or the folder is full."""
        try:
            self._path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            self._require_private()
            path = self._path / f"{held.id}-{held.fence}{_SUFFIX}"
            descriptor = open_private(path, os.O_RDWR | os.O_APPEND | os.O_EXCL)
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # one that looks for what is left lets go of an empty file
            _write(descriptor, self._header(held))
        except OSError as error:
            self._tell(f"{self._path}: {error.strerror or error}: set outbox.spill.path to a folder of this user's")
            return None
        file = SpillFile(path, descriptor, self, held)
        if not file.add(records):
            file.remove()
            self._tell(f"{self._path} is full: raise outbox.spill.max")
            return None
        if not self._begun:
            _log.warning("the database is away: events wait in %s", self._path)
        self._begun.add(file)
        return file

    def removed(self, file: SpillFile) -> None:
        if file in self._begun:
            self._begun.remove(file)
            if not self._begun:
                _log.warning("the database is back: nothing waits in %s any more", self._path)

    def left(self) -> Iterator[SpillFile]:
        """The files of processes that ended, each held by this one until it is removed or kept."""
        for path in sorted(self._path.glob(f"*{_SUFFIX}")):
            with suppress(OSError):  # removed meanwhile, or a link: nothing of ours
                file = self._taken(path)
                if file is not None:
                    yield file

    def has_room(self, size: int) -> bool:
        """Whether the files of every process may grow by so many bytes."""
        now = time.monotonic()
        if self._measured_at is None or now - self._measured_at >= _MEASURED_EVERY:
            self._size, self._measured_at = 0, now
            for path in self._path.glob(f"*{_SUFFIX}"):
                with suppress(FileNotFoundError):
                    self._size += path.stat().st_size
        if self._size + size > self._limit:
            return False
        self._size += size
        return True

    def _taken(self, path: Path) -> SpillFile | None:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            line, ended, _ = os.pread(descriptor, _LONGEST_HEADER, 0).partition(b"\n")
            header: dict[str, Any] = json.loads(line) if ended else {}
            if header.get("format") == _FORMAT and header["log"] == self._identity:
                file = SpillFile(path, descriptor, self, Held(header["sid"], header["id"], header["fence"], 0))
                file.rewind(len(line) + 1)
                return file
        os.close(descriptor)
        return None

    def _header(self, held: Held) -> bytes:
        whose = {"format": _FORMAT, "log": self._identity, "sid": held.stream, "id": held.id, "fence": held.fence}
        return json.dumps(whose).encode() + b"\n"

    def _require_private(self) -> None:
        found = self._path.lstat()
        if self._path.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise OSError(None, "other users may enter it, or own it")

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            _log.error("events wait in memory only while the database is away: %s", why)


async def append_left(file: SpillFile, commit: GroupCommit, reader: Reader) -> None:
    """Append what a process had left of a stream, unless another one has taken the stream over; remove the file.

    Raises ``OutboxError`` if the log cannot be used; the file stays then.
    """
    appended = 0
    try:
        held = await reader.query(lambda connection: still_held(connection, file.held))
        while held is not None and (records := file.read()):
            # its process may have appended the first ones, and may have died before it removed the file
            rest = [each for each in records if each.sequence > held.last_sequence]
            if rest:
                await commit.append(Append(held.stream, held.fence, rest))
                appended += len(rest)
    except Fenced:
        held = None
    except BaseException:
        file.keep()
        raise
    if held is None:
        _log.error(
            "stream %s was ended by another process before what waited on disk could be appended: that is lost",
            file.held.id,
        )
    elif appended:
        _log.warning("stream %s: %d events of a process that ended had waited on disk", file.held.id, appended)
    file.remove()


def _framed(record: Record) -> bytes:
    payload = json.dumps(columns(0, record)).encode() + SEPARATOR + record.body
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _record(payload: bytes) -> Record:
    row, _, body = payload.partition(SEPARATOR)
    ((_, record),) = keyed_records([json.loads(row)], [body])
    return record


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
