"""``deploy/systemd/speech-relay.service``, checked by systemd's own tool."""

import re
import shlex
import subprocess
from pathlib import Path

from relay.config.models import Config
from tests.support.cli import ROOT, environment
from tests.support.tools import tool

UNIT = (ROOT / "deploy/systemd/speech-relay.service").read_text()
INSTALLED = "/opt/speech-relay/bin/speech-relay"
MOST_EXPOSED = 20
"""In tenths: systemd calls 2.0 of 10 well contained; 1.4 with its version 252."""


def analyze(unit: str, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """``systemd-analyze`` on the unit, with the command at the place where it is installed here."""
    file = folder / "speech-relay.service"
    file.write_text(unit.replace(INSTALLED, str(ROOT / ".venv/bin/speech-relay")))
    return subprocess.run(
        [tool("systemd-analyze"), *command, str(file)], capture_output=True, text=True, timeout=60, check=False
    )


def complaints(unit: str, folder: Path) -> list[str]:
    """What systemd says about the unit, and not about others of this machine."""
    verified = analyze(unit, folder, "verify")
    return [line for line in (verified.stdout + verified.stderr).splitlines() if "speech-relay" in line]


def setting(name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    assert complaints(UNIT, tmp_path) == []
    assert complaints(UNIT.replace("LockPersonality", "LockPersonalitty"), tmp_path), "a misspelt key is reported"


def test_the_service_is_well_contained(tmp_path: Path) -> None:
    limit = ("security", "--offline=true", f"--threshold={MOST_EXPOSED}")
    contained = analyze(UNIT, tmp_path, *limit)
    assert contained.returncode == 0, contained.stdout[-300:]
    assert analyze(re.sub(r"(?m)^(Restrict|Private|System).*\n", "", UNIT), tmp_path, *limit).returncode == 1


def test_it_is_given_longer_to_stop_than_it_takes() -> None:
    assert int(setting("TimeoutStopSec")) >= Config().shutdown.grace.total_seconds() + 10
    assert setting("KillMode") == "mixed", "the relay ends the processes of its rooms itself"


def test_it_is_started_again_however_it_ended() -> None:
    """systemd takes an end by SIGHUP, SIGINT, SIGTERM or SIGPIPE for a clean one."""
    assert setting("Restart") == "always"


def test_the_command_takes_its_options(tmp_path: Path) -> None:
    program, *arguments = shlex.split(setting("ExecStart"))
    assert program == INSTALLED
    absent = str(tmp_path / "config.yaml")
    command = [str(ROOT / ".venv/bin/speech-relay"), *(absent if "/" in each else each for each in arguments)]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"{absent}: no such file")
