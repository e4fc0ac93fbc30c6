"""``speech-relay`` and ``python -m relay``."""

import contextlib
import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line. What the operator can act on is one message and exit code 2, never a traceback."""
    # Both before anything else is imported: a signal may come, and a file may be created, at any moment.
    _leave_on_signals()
    from relay.private_files import set_umask

    set_umask()  # child processes inherit it

    from relay.cli.app import app
    from relay.cli.output.terminal import guarded_streams
    from relay.errors import RelayError

    with guarded_streams():
        try:
            app(prog_name="speech-relay")
        except RelayError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)


def _leave_on_signals() -> None:
    """From now on Ctrl-C and SIGTERM end this process at once, without a word; commands that run longer say otherwise.

    Python's own way, an exception wherever the program happens to be, prints a traceback where that is an import, a
    callback or the end of the interpreter. The default action would not do: process 1 of a container ignores it.
    """
    with contextlib.suppress(ValueError):  # not on the main thread, as in a test: signals are somebody else's then
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)


def _leave(number: int, _: FrameType | None) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or interrupted while it was writing
            stream.flush()
    os._exit(128 + number)


if __name__ == "__main__":
    main()
