"""Programs of other languages that a test needs: a user's machine may lack them, CI may not."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

NPM_CI = ("ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund")


def tool(name: str, *elsewhere: str) -> str:
    """The program's path; skips the test where it is not installed."""
    found = shutil.which(name) or next((path for path in elsewhere if Path(path).exists()), None)
    return found or unavailable(f"{name} is not installed")


def prepare(command: list[str], folder: Path) -> None:
    """Run what loads or builds something; skips the test where that fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    if done.returncode:
        unavailable(f"{' '.join(command[1:])}: {done.stderr.strip()[-500:]}")


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it where CI is set."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
