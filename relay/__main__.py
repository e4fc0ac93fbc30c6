"""``speech-relay`` and ``python -m relay``."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import NoReturn


def main() -> None:
    """Run the command line. Errors that the operator can fix are one message and exit code 2, without a traceback.

    A command that has failed leaves the process at once: a thread that still waits, such as those of LiveKit's
    worker if it fails while it starts, would keep it, and nothing would start the relay again.
    """
    try:
        _main()
    except SystemExit as end:
        if end.code in (None, 0) or not _waits():
            raise
        _leave_with(end.code if isinstance(end.code, int) else 1)
    except Exception:
        if not _waits():
            raise
        traceback.print_exc()
        _leave_with(1)


def _waits() -> bool:
    """Whether this is the end of the process, and the interpreter would wait for another thread."""
    return threading.current_thread() is threading.main_thread() and any(
        not each.daemon for each in threading.enumerate() if each is not threading.main_thread()
    )


def _main() -> None:
    # Both before anything else is imported: a signal may arrive, and a file may be created, at any moment.
    _leave_on_signals()
    from relay.private_files import set_umask

    set_umask()  # child processes inherit it

    from relay.cli.app import app
    from relay.cli.output.terminal import guarded_streams
    from relay.errors import RelayError

    with guarded_streams():
        try:
            try:
                app(prog_name="speech-relay")
            finally:
                sys.stdout.flush()  # here, and not at the end of the interpreter, where a failure prints a traceback
        except RelayError as error:
            with contextlib.suppress(RelayError, OSError):  # where standard error fails too, the exit code has to do
                sys.stderr.write(f"{error}\n")
            sys.exit(2)
        except BrokenPipeError:
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)
        finally:
            _discard_unwritable()


def _discard_unwritable() -> None:
    """Point a stream that cannot be written at the null device: the interpreter flushes its buffer once more."""
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _leave_on_signals() -> None:
    """Make Ctrl-C and SIGTERM end this process at once and silently, until a longer-running command overrides it.

    Python's default, an exception at the current point of the program, prints a traceback in an import, a callback or
    the interpreter's shutdown. The system's default action would not work: process 1 of a container ignores it.
    """
    with contextlib.suppress(ValueError):  # not on the main thread, as in a test: signals are handled elsewhere
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)


def _leave(number: int, _: FrameType | None) -> None:
    _leave_with(128 + number)


def _leave_with(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or interrupted during a write
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
