"""Standard output and error without terminal control characters, whatever a command or a library writes."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from relay.errors import OutputError
from relay.telemetry.printable import printable


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Escape non-printing characters on standard output and error, while the block runs.

    Rich writes its colours directly to the stream: the text passed to it must already be printable. A closed stream is
    a null device. A failed write raises :class:`OutputError`, a closed pipe ``BrokenPipeError``.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    if sys.stdin is None:  # first: the lowest descriptor that is free is its own
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  # open as long as the process
    sys.stdout, sys.stderr = _guarded(sys.stdout, "output"), _guarded(sys.stderr, "error")
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _guarded(stream: TextIO | None, name: str) -> TextIO:
    if stream is None:  # the program was started without it, as `speech-relay status >&-` does
        stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # open as long as the process
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal may lack characters of a room's name
    return cast("TextIO", _Guarded(stream, name))


class _Guarded:
    def __init__(self, stream: TextIO, name: str) -> None:
        self.rich_proxied_file = stream
        """Rich looks here for the stream behind a wrapper."""
        self._name = name

    def write(self, text: str) -> int:
        with self._failures_named():
            self.rich_proxied_file.write(printable(text, keep="\n\t"))
        return len(text)

    def flush(self) -> None:
        with self._failures_named():
            self.rich_proxied_file.flush()

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise  # the reader has read enough, as `head` does: no mistake
        except OSError as error:
            raise OutputError(f"standard {self._name} cannot be written: {error.strerror}") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)
