"""The alert rules, checked and tested by Prometheus's own tool."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import ROOT

FOLDER = ROOT / "deploy" / "prometheus"


@pytest.fixture(scope="module")
def promtool() -> str:
    """``$PROMTOOL``, the one in .cache, or the PATH's. In CI it must be there."""
    cached = ROOT / ".cache" / "promtool" / "promtool"
    found = os.environ.get("PROMTOOL") or (str(cached) if cached.exists() else shutil.which("promtool"))
    if found is None:
        why = "no promtool: install Prometheus, or name it in PROMTOOL"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return found


def run(promtool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_prometheus_accepts_the_rules(promtool: str) -> None:
    checked = run(promtool, "check", "rules", str(FOLDER / "alerts.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rules_alert_when_they_should_and_not_otherwise(promtool: str) -> None:
    tested = run(promtool, "test", "rules", str(FOLDER / "alerts_test.yaml"))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_rule_that_never_alerts_fails_its_test(promtool: str, tmp_path: Path) -> None:
    rules = (FOLDER / "alerts.yaml").read_text()
    assert "rooms_unheard > 0" in rules
    (tmp_path / "alerts.yaml").write_text(rules.replace("rooms_unheard > 0", "rooms_unheard > 1000"))
    shutil.copy(FOLDER / "alerts_test.yaml", tmp_path)
    tested = run(promtool, "test", "rules", str(tmp_path / "alerts_test.yaml"))
    assert tested.returncode != 0
    assert "SpeechRelayRoomsUnheard" in tested.stdout + tested.stderr
