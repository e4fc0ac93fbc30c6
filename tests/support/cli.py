"""Runs the command line as a user does: in its own process, isolated from this machine's configuration."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_OURS = ("SPEECH_RELAY", "LIVEKIT_", "DEEPGRAM_", "WEBHOOK_SECRET")

SECRET = "whsec_" + "QUFB" * 11
"""Well-formed, but not valid anywhere."""


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without the relay's variables, plus these variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**clean, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **variables}


def speech_relay(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``speech-relay`` with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
