"""A dispatcher does without LiveKit, which takes a hundred megabytes and seconds to load."""

import subprocess
import sys

_LOADED = """
import sys
import relay.app.service, relay.cli.commands.run
print(sorted({name.partition(".")[0] for name in sys.modules} & {"livekit", "numpy", "onnxruntime"}))
"""


def test_what_a_dispatcher_runs_does_not_load_livekit() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
