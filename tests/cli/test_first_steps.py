"""What a new user types, as the README has it, in every folder that it may be typed in; and the usual mistakes."""

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli.app import app
from relay.config.environment import read_dotenv
from relay.config.load import load
from relay.errors import ConfigError
from tests.support.cli import ROOT, environment, speech_relay, speech_relay_process

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
KEYS = {
    "LIVEKIT_URL": "ws://127.0.0.1:9",
    "LIVEKIT_API_KEY": "key",
    "LIVEKIT_API_SECRET": "secret-of-more-than-thirty-two-bytes",
    "DEEPGRAM_API_KEY": "key",
}
MINE = "endpoints: [{name: mine, url: http://127.0.0.1:9/, signing: none}]\n"


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each ``speech-relay`` that a page shows, in code of its own or within a line."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`(speech-relay [^`\n]*)`", text)
    for line in lines:
        if line.startswith("speech-relay ") and " COMMAND" not in line:
            words = shlex.split(line.partition(" < ")[0], comments=True)[1:]
            yield [word for word in words if word not in ("…", "[…]")]


def readme(command: str) -> list[str]:
    """The first line of the README with this command."""
    return next(words for words in commands((ROOT / "README.md").read_text()) if words[0] == command)


def fill_in(folder: Path) -> None:
    """Edit ``.env`` as the README says."""
    text = (folder / ".env").read_text()
    for name, value in KEYS.items():
        assert re.search(rf"^{name}=$", text, re.MULTILINE), f"init left a line for {name}"
        text = re.sub(rf"^{name}=$", f"{name}={value}", text, flags=re.MULTILINE)
    (folder / ".env").write_text(text)


@pytest.mark.parametrize("fresh_clone", [True, False], ids=["fresh clone", "empty folder"])
def test_the_words_of_the_readme_lead_to_a_configuration_that_works(tmp_path: Path, fresh_clone: bool) -> None:
    if fresh_clone:
        for name in ("config.yaml", "README.md", "Makefile"):
            shutil.copy(ROOT / name, tmp_path)
    words = readme("init")
    done = speech_relay(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (endpoint,) = load(tmp_path / "config.yaml", environ={}).endpoints
    assert str(endpoint.url) == words[words.index("--url") + 1]
    assert endpoint.secrets == (read_dotenv(tmp_path / ".env")["RECEIVER_WEBHOOK_SECRET"][0],)
    fill_in(tmp_path)
    checked = speech_relay(*readme("check"), "--offline", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "to receiver at https://your.app/" in checked.stdout
    assert speech_relay(*readme("status"), cwd=tmp_path).returncode == 1, "there is no relay yet"


def test_the_words_of_the_readme_change_no_configuration_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(MINE)
    done = speech_relay(*readme("init"), cwd=tmp_path)
    assert done.returncode == 1
    assert "--url" in done.stderr
    assert "--force" in done.stderr
    assert (tmp_path / "config.yaml").read_text() == MINE
    assert not (tmp_path / ".env").exists()
    elsewhere = speech_relay(*readme("init"), "--config", "conf/config.yaml", cwd=tmp_path)
    assert elsewhere.returncode == 0
    assert "speech-relay check --config conf/config.yaml" in elsewhere.stdout
    forced = speech_relay(*readme("init"), "--force", cwd=tmp_path)
    assert (forced.returncode, "https://your.app/" in (tmp_path / "config.yaml").read_text()) == (0, True)


def test_the_receiver_of_the_tutorial_verifies_a_sample_and_refuses_a_forgery(tmp_path: Path) -> None:
    page = (ROOT / "docs/start/first-webhook.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    init, trigger = (next(words for words in commands(page) if words[0] == name) for name in ("init", "trigger"))
    assert speech_relay(*init, cwd=tmp_path).returncode == 0
    secrets = {name: value for name, (value, _) in read_dotenv(tmp_path / ".env").items() if value}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "receiver.py").write_text(code.replace("8791", str(port)))
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("127.0.0.1:8791", f"127.0.0.1:{port}"))
    receiver = subprocess.Popen(
        [sys.executable, "receiver.py"], cwd=tmp_path, env=environment(**secrets), stdout=subprocess.PIPE, text=True
    )
    try:
        assert receiver.stdout is not None
        while speech_relay(*trigger, cwd=tmp_path).returncode != 0:
            assert receiver.poll() is None, "the receiver of the page ended"
        assert receiver.stdout.readline() == "verified: transcript.final sample-alice Hello world.\n"
        unsigned = {"webhook-id": "evt_1", "webhook-timestamp": str(int(time.time()))}
        for headers, content in (
            ({}, b"{}"),
            ({"webhook-signature": "v1,"}, b"{}"),
            ({"webhook-signature": "v1"}, b"{}"),
            ({"webhook-signature": "v1,"}, b"\xff"),
        ):
            forged = urllib.request.Request(f"http://127.0.0.1:{port}/", content, {**unsigned, **headers})
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(forged, timeout=10)
    finally:
        receiver.kill()
        receiver.communicate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_that_a_page_shows_exists_with_its_options(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        shown = CliRunner().invoke(app, [*words, "--help"])
        assert shown.exit_code == 0, f"speech-relay {shlex.join(words)}: {shown.output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_options_of_a_shown_command_are_enough(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(page.read_text(encoding="utf-8")):
        if words[0] == "deliveries" and any(word.startswith("--") for word in words):
            result = CliRunner().invoke(app, words)
            assert isinstance(result.exception, ConfigError), f"speech-relay {shlex.join(words)}: {result.output}"


def test_nothing_is_said_to_be_installed_from_where_it_is_not() -> None:
    pages = [*PAGES, *(ROOT / "relay").rglob("*.py"), *(ROOT / "examples").rglob("*.py"), ROOT / "Dockerfile"]
    unpublished = re.compile(r"pip3? install [^\n`]*\bspeech-relay\b(?!\.git| *\()")
    found = [f"{page.name}: {match[0]}" for page in pages for match in unpublished.finditer(page.read_text("utf-8"))]
    in_a_clone = re.compile(r"pip install '\.\[\S+\]'.* in a clone of speech-relay")
    assert [line for line in found if not in_a_clone.search(line)] == []


def test_the_wheel_of_a_clone_brings_all_that_init_needs(tmp_path: Path) -> None:
    source = tmp_path / "clone"
    shutil.copytree(ROOT / "relay", source / "relay", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run(pip, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = (source / "dist").glob("speech_relay-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "relay", *readme("init")],
        cwd=tmp_path / "empty",
        env={**environment(), "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "empty/config.yaml").exists()


@pytest.mark.parametrize(
    ("typed", "code", "told"),
    [
        (["run"], 2, "config.yaml: no such file; `speech-relay init` writes one"),
        (["check"], 2, "config.yaml: no such file; `speech-relay init` writes one"),
        (["listen"], 2, "config.yaml: no such file; `speech-relay init` writes one"),
        (["status"], 2, "config.yaml: no such file; `speech-relay init` writes one"),
        (["chek"], 2, "Did you mean 'check'"),
        (["init", "--url", "your.app/hook"], 2, "Invalid value for --url: not an http:// or https:// URL; write"),
        (["init", "--url", "https://me:pw@your.app/hook"], 2, "Invalid value for --url: carries credentials"),
        (["init", "--name", "CRM"], 2, "Invalid value for --name: not a name; lower-case letters, digits, - and _"),
        (["demo", "--to", "your.app/hook"], 2, "Invalid value for --to: not an http:// or https:// URL; write"),
        (["demo", "--to", "https://me:pw@your.app/hook"], 2, "Invalid value for --to: carries credentials"),
        (["demo", "nothing.wav"], 2, "nothing.wav: there is no such file"),
        (["listen", "--port", "99999"], 2, "Invalid value for '--port'"),
        (["listen", "--port", "0", "--host", "no-such-host.invalid"], 2, "choose another --host or --port"),
        (["purge", "--room", "a", "--participant", "b"], 2, "give --participant or --room, one of them"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_a_mistake_is_told_in_words_and_never_as_a_traceback(
    tmp_path: Path, typed: list[str], code: int, told: str
) -> None:
    secret = {"WEBHOOK_SECRET": "whsec_" + "QUFB" * 11} if "--host" in typed else {}
    begins = typed[0] == "run" or "--host" in typed or "nothing.wav" in typed  # as far as the handlers of signals
    done = (speech_relay_process if begins else speech_relay)(*typed, cwd=tmp_path, **secret)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_run_without_credentials_names_what_is_not_set(tmp_path: Path) -> None:
    speech_relay("init", "--stt", "none", cwd=tmp_path)
    done = speech_relay_process("run", cwd=tmp_path)
    assert done.returncode == 2
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        assert name in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
