"""The container image, built and run for real where there is something to build it with.

``SPEECH_RELAY_IMAGE_BASE`` names the base image to build on; buildah (as root) or docker builds it. Unset: skipped, as
a build takes minutes and downloads every dependency.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.cli import ROOT

BASE = os.environ.get("SPEECH_RELAY_IMAGE_BASE")
TAG = "localhost/speech-relay-test"
CHROOT = ("--isolation", "chroot")  # needs no privileges of the container that the test itself may run in

pytestmark = pytest.mark.timeout(1200)

Shell = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    """Runs a command in the image as the image's own user; says what came of it."""
    if not BASE:
        reason = "SPEECH_RELAY_IMAGE_BASE names no base image"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    if buildah := shutil.which("buildah"):
        built = run(
            *(buildah, "bud", "--format", "docker", *CHROOT, "--network", "host"),
            *("--build-arg", f"BASE={BASE}", "-t", TAG, str(ROOT)),
        )
        assert built.returncode == 0, built.stderr[-4000:]
        container = run(buildah, "from", TAG).stdout.strip()
        yield lambda *command: run(buildah, "run", *CHROOT, container, "--", *command)
        run(buildah, "rm", container)
    else:
        docker = shutil.which("docker")
        assert docker, "neither buildah nor docker is here"
        built = run(docker, "build", "--build-arg", f"BASE={BASE}", "-t", TAG, str(ROOT))
        assert built.returncode == 0, built.stderr[-4000:]
        yield lambda command, *rest: run(docker, "run", "--rm", "--entrypoint", command, TAG, *rest)


def test_it_runs_as_nobody_in_particular(shell: Shell) -> None:
    assert shell("id", "-u").stdout.strip() == "10001"


def test_the_command_is_there(shell: Shell) -> None:
    result = shell("speech-relay", "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage: speech-relay" in result.stdout


def test_it_can_write_its_data_and_nothing_else(shell: Shell) -> None:
    assert shell("sh", "-c", "touch /app/var/x").returncode == 0
    assert shell("sh", "-c", "touch /app/x").returncode != 0
    assert shell("sh", "-c", "touch /opt/relay/x").returncode != 0


def test_without_a_configuration_it_says_so(shell: Shell) -> None:
    result = shell("speech-relay", "check", "--offline")
    assert result.returncode == 2
    assert result.stderr.startswith("config.yaml: no such file; `speech-relay init` writes one\n")


def test_everything_that_a_configuration_may_name_is_installed(shell: Shell) -> None:
    endpoints = json.dumps([{"name": "a", "url": "http://a.example.com", "signing": "none"}])
    for stt in ("deepgram", "moonshine"):
        environ = ("DEEPGRAM_API_KEY=k", f"SPEECH_RELAY__CAPTURE__STT__PROVIDER={stt}")
        result = shell(
            *("env", *environ, f"SPEECH_RELAY__ENDPOINTS={endpoints}", "speech-relay", "check", "--offline", "--json")
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert {each["subject"]: each["status"] for each in json.loads(result.stdout)["checks"]}["outbox"] == "ok"


def test_no_build_tool_and_no_secret_is_left_in_it(shell: Shell) -> None:
    assert shell("sh", "-c", "ls -A /app").stdout.split() == ["var"]
    assert shell("python", "-c", "import pip").returncode != 0
