"""A command that fails ends its process, whatever still runs in it."""

import subprocess
import sys

import pytest

FAILS = """
import sys, threading
from relay import __main__
from relay.cli import app
from relay.errors import RelayError

def fails(prog_name):
    threading.Thread(target=threading.Event().wait).start()  # as LiveKit's do, for a job that is never heard of again
    {raises}

app.app = fails
__main__.main()
"""


@pytest.mark.parametrize(
    ("raises", "code", "says"),
    [
        ("raise RelayError('no log')", 2, "no log\n"),
        ("raise LookupError('unexpected')", 1, "LookupError: unexpected\n"),
        ("sys.exit(1)", 1, ""),
    ],
)
def test_a_thread_that_waits_does_not_keep_the_process(raises: str, code: int, says: str) -> None:
    script = [sys.executable, "-c", FAILS.format(raises=raises)]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code
    assert ended.stderr.endswith(says)
