"""Signatures on file, against three implementations that are not ours: Python, JavaScript and Go.

The file was written once. A signer that makes something else of the same input fails here.
"""

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks.webhooks
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.tools import NPM_CI, prepare, tool
from tests.vectors.make import FILE, vectors

VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
EXPECTED = {vector["name"]: vector["holds"] for vector in VECTORS}


def test_our_signer_makes_what_is_on_file() -> None:
    assert vectors() == VECTORS


@pytest.mark.parametrize("vector", VECTORS, ids=list(EXPECTED))
def test_python(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """standardwebhooks of PyPI."""

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]  # any time zone will do
            return datetime.fromtimestamp(int(vector["timestamp"]), UTC)

    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Then)
    headers = {f"webhook-{name}": vector[name] for name in ("id", "timestamp", "signature")}
    if vector["holds"]:
        assert verifies(vector, headers)
    else:
        with pytest.raises(WebhookVerificationError):
            verifies(vector, headers)


def verifies(vector: dict[str, Any], headers: dict[str, str]) -> bool:
    try:
        Webhook(vector["secret"]).verify(vector["body"], headers)
    except json.JSONDecodeError:
        return not vector["body"]  # it verified, and then could not parse an empty body
    return True


def test_javascript(tmp_path: Path) -> None:
    """standardwebhooks of npm."""
    node, npm = tool("node"), tool("npm")
    folder = shutil.copytree(FILE.parent / "javascript", tmp_path / "javascript")
    prepare([npm, *NPM_CI], folder)
    assert verdicts([node, "verify.mjs"], folder) == EXPECTED


def test_go(tmp_path: Path) -> None:
    """github.com/standard-webhooks/standard-webhooks/libraries of the Go module proxy."""
    go = tool("go", "/usr/local/go/bin/go")
    folder = shutil.copytree(FILE.parent / "go", tmp_path / "go")
    prepare([go, "build", "-o", "verify", "."], folder)
    assert verdicts(["./verify"], folder) == EXPECTED


def verdicts(command: list[str], folder: Path) -> Any:
    done = subprocess.run(command, cwd=folder, input=FILE.read_bytes(), stdout=subprocess.PIPE, check=True, timeout=60)
    return json.loads(done.stdout)
