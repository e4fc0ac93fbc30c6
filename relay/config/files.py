"""Reads configuration files: bounded, without waiting for a writer, as UTF-8 text."""

import errno
import os
import stat
from pathlib import Path

MAX_BYTES = 1024 * 1024
"""Far above any configuration, and still fast to read."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_file(path: Path, *, pipes: bool = False) -> bytes:
    """Return a file's content. Raises ``OSError`` whose ``strerror`` says why not, also for a file over 1 MiB.

    ``pipes`` False: a pipe is refused, because reading one waits for its writer, and it can be read only once.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if pipes else os.O_NONBLOCK))
    except ValueError:
        raise OSError(errno.EINVAL, "its path has a NUL character") from None
    with os.fdopen(descriptor, "rb") as stream:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode) and not pipes:
            raise OSError(errno.EINVAL, "a pipe, which cannot be read again after a change; use a file")
        content = stream.read(MAX_BYTES + 1) or b""  # None if a terminal has nothing to read
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, "larger than 1 MiB")
    return content


def decoded(content: bytes) -> str:
    """The text of a file, without a byte order mark. Raises ``ValueError`` with the cure."""
    if content.startswith(_UTF16):
        raise ValueError("UTF-16, not UTF-8 text; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text; save it as UTF-8") from None
    if "\0" in text:
        raise ValueError("has NUL characters, as UTF-16 text does; save it as UTF-8")
    return text
