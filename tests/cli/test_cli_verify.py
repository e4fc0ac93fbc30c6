"""``verify``: one signature by hand, from a file or from standard input, with the secret of the right endpoint."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from tests.support.cli import SECRET, environment, speech_relay

OTHER = "whsec_" + "QkJC" * 11
BODY = '{"type": "transcript.final", "data": {"text": "hello"}}\n'
LIVEKIT = "{name: lk, url: http://lk, signing: livekit, livekit_key: {api_key: key, api_secret: secret}}"


def headers(secret: str = SECRET) -> list[str]:
    at = datetime.now(UTC)
    signature = Webhook(secret).sign("evt_1", at, BODY)
    return ["--id", "evt_1", "--timestamp", str(int(at.timestamp())), "--signature", signature]


def verify(cwd: Path, *arguments: str, given: str = "") -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``verify`` with this on its standard input."""
    done = speech_relay("verify", *arguments, cwd=cwd, given=given)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One endpoint that is signed to as LiveKit does, then two with secrets."""
    endpoints = f"{LIVEKIT}, {{name: a, url: http://a}}, {{name: b, url: http://b}}"
    (tmp_path / "config.yaml").write_text(f"endpoints: [{endpoints}]")
    (tmp_path / ".env").write_text(f"A_WEBHOOK_SECRET={SECRET}\nB_WEBHOOK_SECRET={OTHER}\n")
    return tmp_path


def test_a_file_by_hand(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text(BODY)
    assert verify(tmp_path, *headers(), "--secret", SECRET, "body.json") == (0, "holds\n", "")
    wrong = verify(tmp_path, *headers(OTHER), "--secret", SECRET, "body.json")
    assert wrong == (1, "does not hold: No matching signature found\n", "")


@pytest.mark.parametrize("body", [[], ["-"]])
def test_standard_input_byte_for_byte(tmp_path: Path, body: list[str]) -> None:
    arguments = [*headers(), "--secret", SECRET, *body]
    assert verify(tmp_path, *arguments, given=BODY) == (0, "holds\n", "")
    assert verify(tmp_path, *arguments, given=BODY.strip())[0] == 1


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    missing = verify(tmp_path, *headers(), "--secret", SECRET, "body.json")
    assert missing == (2, "", "body.json cannot be read: No such file or directory\n")
    folder = verify(tmp_path, *headers(), "--secret", SECRET, ".")
    assert folder == (2, "", ". cannot be read: Is a directory\n")


@pytest.mark.parametrize("content", [f"{SECRET}\n", f"{OTHER}\r\n{SECRET}\r\n", f"\ufeff{SECRET} {OTHER}"])
def test_the_secret_comes_from_a_file_and_stays_off_the_command_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_text(content, newline="")
    assert verify(tmp_path, *headers(), "--secret-file", "secret", given=BODY) == (0, "holds\n", "")


def test_the_secret_comes_from_a_pipe_or_from_a_variable(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text(BODY)
    piped = subprocess.run(
        [sys.executable, "-m", "relay", "verify", *headers(), "--secret-file", "/dev/stdin", "body.json"],
        cwd=tmp_path,
        env=environment(),
        input=SECRET,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, "holds\n", "")
    (tmp_path / "secret").write_text(SECRET)
    for variables in ({"WEBHOOK_SECRET": f"{OTHER} {SECRET}\n"}, {"WEBHOOK_SECRET_FILE": "secret"}):
        done = speech_relay("verify", *headers(), "body.json", cwd=tmp_path, **variables)
        assert (done.returncode, done.stdout) == (0, "holds\n")


@pytest.mark.parametrize("content", ["hush", "", f"'{SECRET}'"])
def test_a_secret_file_that_holds_none_is_one_line_without_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_text(content)
    code, out, err = verify(tmp_path, *headers(), "--secret-file", "secret", given=BODY)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("--secret-file: secret: ")
    assert not content or content.strip("'") not in err
    missing = verify(tmp_path, *headers(), "--secret-file", "none", given=BODY)
    assert missing == (2, "", "--secret-file: none cannot be read: No such file or directory\n")


def test_the_first_endpoint_that_has_a_secret_is_asked_and_named(folder: Path) -> None:
    assert verify(folder, *headers(), given=BODY) == (0, "holds with the secret of a\n", "")
    told = "does not hold with the secret of a: No matching signature found\n"
    assert verify(folder, *headers(OTHER), given=BODY) == (1, told, "")
    assert verify(folder, *headers(OTHER), "--endpoint", "b", given=BODY)[0] == 0


def test_where_no_endpoint_has_a_secret_it_says_what_to_do(folder: Path) -> None:
    told = "signing: standard, so there is no secret to verify with; give --secret whsec_…\n"
    named = verify(folder, *headers(), "--endpoint", "lk", given=BODY)
    assert named == (2, "", f"endpoint lk does not have {told}")
    (folder / "config.yaml").write_text(f"endpoints: [{LIVEKIT}]")
    assert verify(folder, *headers(), given=BODY) == (2, "", f"config.yaml: no endpoint has {told}")


def test_json(folder: Path) -> None:
    code, out, _ = verify(folder, *headers(), "--json", given=BODY)
    assert (code, json.loads(out)) == (0, {"holds": True, "endpoint": "a", "reason": None})
    code, out, _ = verify(folder, *headers(), "--json", "--secret", OTHER, given=BODY)
    assert (code, json.loads(out)) == (1, {"holds": False, "endpoint": None, "reason": "No matching signature found"})
