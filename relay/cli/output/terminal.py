"""Standard output and error without terminal control characters, whatever a command or a library writes."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from relay.telemetry.printable import printable


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Escape non-printing characters on standard output and error, while the block runs.

    Rich writes its colours directly to the stream: the text passed to it must already be printable.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _guarded(stream: TextIO) -> TextIO:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal may lack characters of a room's name
    return cast("TextIO", _Guarded(stream))


class _Guarded:
    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        """Rich looks here for the stream behind a wrapper."""

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(printable(text, keep="\n\t"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)
