"""The container image, built and run for real where there is something to build it with.

``SPEECH_RELAY_IMAGE_BASE`` names the base image to build on; buildah (as root) or docker builds it. Unset: skipped, as
a build takes minutes and downloads every dependency.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import ROOT
from tests.support.livekit.livekit_server import API_KEY, API_SECRET, LiveKitServer
from tests.support.tools import unavailable

BASE = os.environ.get("SPEECH_RELAY_IMAGE_BASE")
TAG = "localhost/speech-relay-test"
CHROOT = ("--isolation", "chroot")  # needs no privileges of the container that the test itself may run in

pytestmark = pytest.mark.timeout(1200)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Image:
    """The image that the Dockerfile builds, by buildah or docker."""

    def __init__(self) -> None:
        if not BASE:
            unavailable("SPEECH_RELAY_IMAGE_BASE names no base image")
        self._buildah, self._docker = shutil.which("buildah"), shutil.which("docker")
        base = ("--build-arg", f"BASE={BASE}")
        if self._buildah:
            options = ("--format", "docker", *CHROOT, "--network", "host", *base)
            built = run(self._buildah, "bud", *options, "-t", TAG, str(ROOT))
        else:
            assert self._docker, "neither buildah nor docker is here"
            built = run(self._docker, "build", *base, "-t", TAG, str(ROOT))
        assert built.returncode == 0, built.stderr[-4000:]
        self._container = run(self._buildah, "from", TAG).stdout.strip() if self._buildah else ""

    def __call__(self, command: str, *rest: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the image as the image's own user; say what came of it."""
        if self._buildah:
            return run(self._buildah, "run", *CHROOT, self._container, "--", command, *rest)
        return run(str(self._docker), "run", "--rm", "--entrypoint", command, TAG, *rest)

    def read_only(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command on a read-only root, with memory at /tmp and /app/var, and this machine's network."""
        if self._buildah:
            root = run(self._buildah, "mount", self._container).stdout.strip()
            script = str(Path(__file__).parent / "read_only.sh")
            start = ["unshare", "--mount", "--propagation", "private", "sh", "-eu", script, root, *command]
        else:
            mounts = ("--tmpfs", "/tmp", "--tmpfs", "/app/var:uid=10001,gid=10001,mode=0700")
            start = [str(self._docker), "run", "--rm", "--init", "--read-only", *mounts, "--network", "host"]
            start += ["--entrypoint", command[0], TAG, *command[1:]]
        return subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def remove(self) -> None:
        if self._buildah:
            run(self._buildah, "rm", self._container)
            run(self._buildah, "rmi", TAG)  # a build of the same name would leave it behind without one: 0.8 GB each


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    built = Image()
    yield built
    built.remove()


def test_it_runs_as_nobody_in_particular(image: Image) -> None:
    assert image("id", "-u").stdout.strip() == "10001"


def test_the_command_is_there(image: Image) -> None:
    result = image("speech-relay", "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage: speech-relay" in result.stdout


def test_it_can_write_its_data_and_nothing_else(image: Image) -> None:
    assert image("sh", "-c", "touch /app/var/x").returncode == 0
    assert image("sh", "-c", "touch /app/x").returncode != 0
    assert image("sh", "-c", "touch /opt/relay/x").returncode != 0


def test_without_a_configuration_it_says_so(image: Image) -> None:
    result = image("speech-relay", "check", "--offline")
    assert result.returncode == 2
    assert result.stderr.startswith("config.yaml: no such file; `speech-relay init` writes one\n")


def test_everything_that_a_configuration_may_name_is_installed(image: Image) -> None:
    endpoints = json.dumps([{"name": "a", "url": "http://a.example.com", "signing": "none"}])
    for stt in ("deepgram", "moonshine"):
        environ = ("DEEPGRAM_API_KEY=k", f"SPEECH_RELAY__CAPTURE__STT__PROVIDER={stt}")
        result = image(
            *("env", *environ, f"SPEECH_RELAY__ENDPOINTS={endpoints}", "speech-relay", "check", "--offline", "--json")
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert {each["subject"]: each["status"] for each in json.loads(result.stdout)["checks"]}["outbox"] == "ok"


def test_nothing_is_compiled_again_at_each_start(image: Image) -> None:
    imported = image("python", "-v", "-c", "import relay.app.service")
    assert imported.returncode == 0
    assert imported.stderr.count(".pyc") > 100
    assert "bytecode is stale" not in imported.stderr


def test_no_build_tool_and_no_secret_is_left_in_it(image: Image) -> None:
    assert image("sh", "-c", "ls -A /app").stdout.split() == ["var"]
    assert image("python", "-c", "import pip").returncode != 0


def test_the_variant_without_speech_recognition_has_everything_else() -> None:
    """The build argument chooses the lock file; a second build would take as long as the first."""
    (chosen,) = re.findall(r'--require-hashes -r "(requirements\$.*?)"', (ROOT / "Dockerfile").read_text())
    installed = {}
    for extras in ("moonshine", ""):
        name = subprocess.run(
            ["sh", "-c", f'echo "{chosen}"'], env={"EXTRAS": extras}, capture_output=True, text=True, check=True
        )
        installed[extras] = set(re.findall(r"^[\w.-]+(?===)", (ROOT / name.stdout.strip()).read_text(), re.MULTILINE))
    assert "psycopg-binary" in installed[""]
    assert installed[""] < installed["moonshine"]
    assert "moonshine-voice" in installed["moonshine"] - installed[""]


def test_nothing_but_its_data_and_tmp_can_be_written_on_a_read_only_root(image: Image) -> None:
    script = "touch /app/var/x /tmp/x && ! touch /app/x && ! touch /opt/relay/x && id -u"
    written = image.read_only("sh", "-c", script)
    output, _ = written.communicate(timeout=60)
    assert written.returncode == 0, output
    assert output.count("Read-only file system") == 2
    assert output.split()[-1] == "10001"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", ["run", "worker", "dispatch"])
def test_a_process_gets_ready_and_stops_on_a_read_only_root(
    image: Image, server: LiveKitServer, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {
        "LIVEKIT_URL": server.url,
        "LIVEKIT_API_KEY": API_KEY,
        "LIVEKIT_API_SECRET": API_SECRET,
        "SPEECH_RELAY__CAPTURE__STT__PROVIDER": "moonshine",
        "SPEECH_RELAY__ENDPOINTS": json.dumps([{"name": "a", "url": "http://127.0.0.1:9/", "signing": "none"}]),
        "SPEECH_RELAY__API__LISTEN": "127.0.0.1:0",
    }
    relay = image.read_only("env", *(f"{name}={value}" for name, value in variables.items()), "speech-relay", role)
    assert relay.stdout is not None
    try:
        said: list[str] = []
        for line in relay.stdout:  # until it is ready, or has ended
            said.append(line)
            if ready := re.search(r"Ready in [0-9.]+ s", line):
                break
        else:
            pytest.fail("".join(said))
        with capsys.disabled():
            print(f"\nimage, {role}: {ready[0]}")  # noqa: T201 - a figure, for who builds the image
        relay.terminate()
        rest, _ = relay.communicate(timeout=60)
        assert relay.returncode == 0, rest
        assert "Traceback" not in rest
    finally:
        relay.kill()
        relay.wait()
