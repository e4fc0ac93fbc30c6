"""Creates and checks files and folders that only their owner may read.

The log contains what people said, and any user who can open a lock can hold it indefinitely.
"""

import errno
import fcntl
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
_OTHERS = 0o077

log = logging.getLogger(__name__)


def set_umask() -> None:
    """Create every file of this process and its children without permissions for others."""
    os.umask(_OTHERS)


def open_private(path: Path, flags: int) -> int:
    """Open or create a file with mode 0600 and return its descriptor; an existing file is tightened to 0600.

    Raises ``OSError`` for a symbolic link, for anything but a regular file, and for a file of another user.
    """
    try:
        # O_NONBLOCK: a named pipe left here must not block; regular files ignore it
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _link(path) from None
        raise
    try:
        found = os.fstat(descriptor)
        _require_own(path, found)
        if stat.S_IMODE(found.st_mode) & _OTHERS:
            _chmod(path, FILE_MODE, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def give_to_owner_of(path: Path, descriptor: int) -> None:
    """As root, give an empty file, which may just have been created, to the owner of the one at ``path``.

    Otherwise that owner could not open it. SQLite does so with its own files.
    """
    if os.geteuid() != 0:
        return
    try:
        owner = path.lstat()
    except FileNotFoundError:
        return
    found = os.fstat(descriptor)
    # only a file that tells nothing, and that has no other name
    if found.st_uid == 0 != owner.st_uid and found.st_size == 0 and found.st_nlink == 1:
        with suppress(PermissionError):  # root in a container may lack the right
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def create_locked(path: Path, flags: int) -> int:
    """Create a file with mode 0600, locked by this process, and return its descriptor. Others that lock it for a moment
    may remove it while it is empty. Raises as :func:`open_private` does, and ``FileExistsError``."""
    while True:
        descriptor = open_private(path, flags | os.O_EXCL)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Write a file with only this text. Raises as :func:`open_private` does."""
    with os.fdopen(open_private(path, os.O_WRONLY), "w", encoding="utf-8") as file:
        file.truncate()  # not before the file is known to be this user's
        file.write(text)


def create_private(path: Path) -> None:
    """Create an empty file with mode 0600; an existing one is tightened without being opened.

    For SQLite's files: closing any descriptor of such a file drops the locks that this process holds on it. Raises as
    :func:`open_private` does.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    except FileExistsError:
        tighten(path)


def tighten(path: Path) -> None:
    """Remove other users' permissions from a file, if it exists. Raises as :func:`open_private` does."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise _link(path)
    _require_own(path, found)
    if stat.S_IMODE(found.st_mode) & _OTHERS:
        _chmod(path, FILE_MODE)


def make_private_directory(path: Path) -> None:
    """Create a folder with mode 0700. Its parent must exist; an existing folder stays as it is."""
    path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)


def require_private_directory(path: Path) -> None:
    """Require that a folder is this user's, and that no other may enter it. Raises ``OSError``."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
        raise OSError(None, "other users may enter it, or own it, or it is no folder")


def tighten_directory(path: Path, *, holding: str) -> None:
    """Remove other users' permissions from a folder that holds only files whose names begin with ``holding``.

    Such a folder was made for them. The owner decides about a folder with other content.
    """
    found = path.stat()
    theirs = found.st_uid != os.geteuid() or bool(found.st_mode & stat.S_ISVTX)
    if theirs or not stat.S_IMODE(found.st_mode) & _OTHERS:
        return
    if all(entry.name.startswith(holding) for entry in path.iterdir()):
        _chmod(path, DIRECTORY_MODE)


def exposed(path: Path) -> bool:
    """Whether users other than the owner may read or write a file. False if it does not exist.

    A file of another user, such as root's mounted secret, is read through its group: that is no exposure.
    """
    try:
        found = path.stat()
    except OSError:
        return False
    by_group = found.st_uid != os.geteuid() and found.st_gid in {os.getegid(), *os.getgroups()}
    return bool(found.st_mode & (0o006 if by_group else 0o066))


def _require_own(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file: move it away")
    # the owner of the folder could replace the file anyway
    if found.st_uid not in (os.geteuid(), 0) and found.st_uid != path.parent.stat().st_uid:
        raise OSError(errno.EPERM, f"{path.name} belongs to another user: run this as that user, or change its owner")


def _link(path: Path) -> OSError:
    return OSError(errno.ELOOP, f"{path.name} is a symbolic link: name the file itself")


def _chmod(path: Path, mode: int, descriptor: int | None = None) -> None:
    try:
        os.chmod(path if descriptor is None else descriptor, mode)  # noqa: PTH101 - a descriptor has no Path
    except OSError as error:  # some file systems have no modes, and only root can change root's files
        log.warning("%s may be read by other users, and that cannot be changed (%s)", path, error.strerror)
