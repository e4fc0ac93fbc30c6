"""Events that wait for a database that is away, in private files that survive the process.

There is a file per stream (:mod:`relay.outbox.log.spill_format`), which its process has locked. What is written has
reached the kernel, so that it survives the process, but not a power failure: it is not synced. What is left of a
process that ended is appended by the next one that looks. Nothing that a file contains ends the process: what is before
the first damage is appended, and the file is kept under another name.
"""

import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from relay.errors import Fenced
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.reader import Reader
from relay.outbox.log.spill_format import (
    FRAME_SIZE,
    LONGEST_HEADER,
    UNREADABLE,
    framed,
    header,
    is_whole,
    read_frame,
    read_header,
    read_record,
)
from relay.outbox.log.streams import Held, still_held
from relay.outbox.records import Append, Record
from relay.private_files import DIRECTORY_MODE, create_locked, require_private_directory

_SUFFIX = ".spill"
_DAMAGED = ".damaged"
"""Is put behind the name of a file that is damaged: it is for the operator, and nothing reads it."""
_BATCH_RECORDS, _BATCH_BYTES = 512, 4 << 20
"""Maximum of records, and about the maximum of bytes, that are read at once."""
_MEASURED_EVERY = 1.0
"""Seconds between two measurements of the folder."""

_IN_MEMORY_ONLY = "events wait in memory only while the database is away"

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
        self.path, self._descriptor, self._folder, self.held = path, descriptor, folder, held
        self.end = self._read_to = os.fstat(descriptor).st_size
        self._last_read: int | None = None
        self._damaged = False

    def rewind(self, header: int) -> None:
        """Read from the first record on, behind so many bytes."""
        self._read_to = header

    def skip(self, records: Sequence[Record]) -> None:
        """Go on behind these, which are the next ones."""
        self._read_to += sum(len(framed(each)) for each in records)

    def add(self, records: Iterable[Record]) -> bool:
        """Write them behind the others; False, with nothing written, if they cannot be, or the folder is full."""
        data = b"".join(map(framed, records))
        if not self._folder.has_room(len(data)):
            return False
        try:
            found = os.fstat(self._descriptor)
            if found.st_size != self.end:  # a part of records that did not fit, and could not be cut off at once
                os.ftruncate(self._descriptor, self.end)
            _write(self._descriptor, data)
        except OSError as error:
            _log.error("%s: %s", self.path, error.strerror)
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.end)
            return False
        self.end += len(data)
        if not found.st_nlink:
            self._folder.tell(f"{self.path} was removed: the events in it do not survive this process")
        return True

    def read(self, exactly: int | None = None) -> list[Record]:
        """The next records, by default a batch; none at the end, and behind a record that is damaged."""
        records: list[Record] = []
        size = 0
        while len(records) < (exactly or _BATCH_RECORDS) and (exactly or size < _BATCH_BYTES):
            try:
                payload = self._payload()
                if payload is None:
                    break
                record = read_record(payload, self._last_read)
            except (OSError, *UNREADABLE):
                self._damaged = True
                break
            records.append(record)
            self._last_read = record.sequence
            self._read_to += FRAME_SIZE + len(payload)
            size += len(payload)
        return records

    def _payload(self) -> bytes | None:
        """That of the next frame; None at the end, and for one that was cut off there. Raises ValueError for damage."""
        head = os.pread(self._descriptor, FRAME_SIZE, self._read_to)
        if len(head) < FRAME_SIZE:
            return None
        length, checksum = read_frame(head)
        payload = os.pread(self._descriptor, length, self._read_to + FRAME_SIZE)
        return payload if is_whole(payload, length, checksum) else None

    def remove(self) -> None:
        """Remove it: its records are in the log, or never will be. A damaged file is kept for the operator."""
        self._folder.remove(self.path, damaged=self._damaged)
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
        self._told: set[str] = set()
        self._begun: set[SpillFile] = set()
        """What this process has in the folder."""

    def begin(self, held: Held, records: Iterable[Record]) -> SpillFile | None:
        """A file with these records of a stream; None if it cannot be written, or the folder is full."""
        path = self._path / _name(held)
        try:
            self._path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            require_private_directory(self._path)
            descriptor = create_locked(path, os.O_RDWR | os.O_APPEND)
            try:
                _write(descriptor, header(held, self._identity))
            except OSError:
                path.unlink(missing_ok=True)
                os.close(descriptor)
                raise
        except OSError as error:
            cure = "set outbox.spill.path to a folder of this user's"
            self.tell(f"{_IN_MEMORY_ONLY}: {self._path}: {error.strerror or error}: {cure}")
            return None
        file = SpillFile(path, descriptor, self, held)
        if not file.add(records):
            file.remove()
            self.tell(f"{_IN_MEMORY_ONLY}: {self._path} is full: raise outbox.spill.max, or free some space")
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
        try:
            require_private_directory(self._path)
        except FileNotFoundError:
            return
        except OSError as error:
            self.tell(f"what waits in {self._path} is not sent: {error.strerror or error}: make it this user's alone")
            return
        for path in sorted(self._path.glob(f"*{_SUFFIX}")):
            with suppress(OSError):  # removed meanwhile, or a link: nothing of ours
                file = self._taken(path)
                if file is not None:
                    yield file

    def has_room(self, size: int) -> bool:
        """Whether the files of every process may grow by so many bytes."""
        now = time.monotonic()
        if self._measured_at is None or now - self._measured_at >= _MEASURED_EVERY:
            sizes = {file.path: file.end for file in self._begun}  # also of those that someone has removed
            for path in self._path.glob(f"*{_SUFFIX}"):
                with suppress(FileNotFoundError):
                    sizes[path] = path.stat().st_size
            self._size, self._measured_at = sum(sizes.values()), now
        if self._size + size > self._limit:
            return False
        self._size += size
        return True

    def remove(self, path: Path, *, damaged: bool) -> None:
        """Remove a file of it; one that is damaged is kept where nothing reads it."""
        try:
            if damaged:
                path.rename(path.with_name(path.name + _DAMAGED))
                self.tell(f"{path} was damaged: what is behind the damage is not sent; it is kept as *{_DAMAGED}")
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            self.tell(f"{path} cannot be removed: {error.strerror}: remove it")

    def tell(self, what: str) -> None:
        """Log an error, once."""
        if what not in self._told:
            self._told.add(what)
            _log.error("%s", what)

    def _taken(self, path: Path) -> SpillFile | None:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        file = None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._may_be_read(path, os.fstat(descriptor)):
                line, ended, _ = os.pread(descriptor, LONGEST_HEADER, 0).partition(b"\n")
                held = self._whose(path, line if ended else b"")
                if held is not None:
                    file = SpillFile(path, descriptor, self, held)
                    file.rewind(len(line) + 1)
        except UNREADABLE:
            self.remove(path, damaged=True)
        finally:
            if file is None:
                os.close(descriptor)
        return file

    def _may_be_read(self, path: Path, found: os.stat_result) -> bool:
        """Whether this user alone has written it. One without content is removed: its process died as it began it."""
        private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if not stat.S_ISREG(found.st_mode) or not private or found.st_nlink > 1:
            self.tell(f"{path} is not appended: other users may have written it, or it has another name: remove it")
            return False
        if not found.st_size:
            path.unlink(missing_ok=True)  # one that is just being begun is begun again
        return bool(found.st_size and found.st_nlink)

    def _whose(self, path: Path, line: bytes) -> Held | None:
        """The stream of a file with this first line; None for another log's. Raises one of ``UNREADABLE``."""
        held = read_header(line, self._identity)
        if held is None:
            self.tell(f"{path} is not appended: it is of another outbox.url, or of another version")
        elif path.name != _name(held):
            raise ValueError("the name of another stream's file")
        return held


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


def _name(held: Held) -> str:
    return f"{held.id}-{held.fence}{_SUFFIX}"


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
