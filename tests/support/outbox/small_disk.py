"""A disk that is really full: a file system of a few megabytes in memory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_FILLING = "filling"


class SmallDisk:
    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, *, leave: int = 0) -> None:
        """Use all the space except this many bytes."""
        with (self.path / _FILLING).open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
        if leave:
            os.truncate(self.path / _FILLING, max(0, (self.path / _FILLING).stat().st_size - leave))

    def free(self) -> None:
        """Free the space again."""
        (self.path / _FILLING).unlink()

    def forbid_writing(self) -> None:
        """Mount it read-only from now on."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True, timeout=10)


@contextmanager
def small_disk(path: Path, *, megabytes: int = 8) -> Iterator[SmallDisk]:
    """Mounted at the path for as long as the block runs.

    Skips the test where mounting is not allowed (it needs root on Linux); in CI that is a failure.
    """
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        why = f"a file system of its own cannot be mounted on {sys.platform}: {said}"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=10)
