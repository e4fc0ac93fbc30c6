"""Ctrl-C ends every command without a traceback, from it or from its children, at any moment."""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.audio.speech import needs_moonshine
from tests.support.cli import SECRET, environment

CONFIG = f"""\
capture: {{stt: none}}
endpoints: [{{name: crm, url: 'http://127.0.0.1:9/', secret: {SECRET}}}]
admin: {{listen: '127.0.0.1:0'}}
"""
WITHIN = 60
NOISE = re.compile(r"Traceback|KeyboardInterrupt|Exception|[Ee]rror|Aborted|resource_tracker", re.ASCII)


class Command:
    """A command in a process group of its own, which tells of every import as it is done, its children's too."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        variables = {"LIVEKIT_URL": "ws://127.0.0.1:1", "LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s", **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "relay", *arguments],
            cwd=folder,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []
        """What is no import."""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def until(self, marker: str, count: int = 1) -> None:
        """Until a module is imported, or a text is in a line, so many times."""
        for line in self._until_end():
            count -= line.rpartition("|")[2].strip() == marker or marker in self._text(line)
            if count == 0:
                return
        raise AssertionError(f"it ended without {marker}: {self.said}")

    def interrupt(self) -> int:
        """Ctrl-C in its terminal; the exit code, once it and all its children have ended."""
        os.killpg(self.process.pid, signal.SIGINT)
        for _ in self._until_end():
            pass
        return self.process.wait(WITHIN)

    def _until_end(self) -> Iterator[str]:
        while (line := self._lines.get(timeout=WITHIN)) is not None:
            if text := self._text(line):
                self.said.append(text)
            yield line

    @staticmethod
    def _text(line: str) -> str:
        return "" if line.startswith("import time:") else line.rstrip("\n")

    def noise(self) -> Sequence[str]:
        return [line for line in self.said if NOISE.search(line)]


@contextmanager
def started(folder: Path, *arguments: str, **variables: str) -> Iterator[Command]:
    (folder / "config.yaml").write_text(CONFIG)
    command = Command(folder, *arguments, **variables)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            os.killpg(command.process.pid, signal.SIGKILL)
            command.process.wait()
        command._reader.join()


@pytest.mark.parametrize(
    ("module", "count"),
    [
        ("relay.private_files", 1),
        ("typer", 1),
        ("relay.config.load", 1),
        ("multiprocessing.forkserver", 2),  # the process that jobs are forked from
        ("livekit.rtc", 1),
        ("livekit.agents", 1),
        ("livekit.agents", 2),
        ("relay.app.service", 1),
        ("onnxruntime", 1),
    ],
)
def test_ctrl_c_while_run_is_starting_ends_it_quietly(tmp_path: Path, module: str, count: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # Of a server that refuses, the relay would speak if it comes that far before its children have loaded.
        address = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        with started(tmp_path, "run", LIVEKIT_URL=address) as command:
            command.until(module, count)
            assert command.interrupt() in (0, 130), "Ctrl-C must end it as a shell expects"
        plan = '"logger": "relay.run"'
        assert [line for line in command.said if plan not in line] == [], (
            "nothing was begun, so there is nothing to say"
        )


def test_ctrl_c_while_run_waits_for_livekit_ends_it_in_order(tmp_path: Path) -> None:
    with started(tmp_path, "run", "--log-format", "human") as command:
        command.until("Waiting for it.")
        assert command.interrupt() == 0, "Ctrl-C must end `run` in order"
        assert command.noise() == [], "Ctrl-C must leave no traceback on the terminal"


def test_sigterm_while_run_is_starting_ends_it_too(tmp_path: Path) -> None:
    with started(tmp_path, "run") as command:
        command.until("livekit.rtc")
        command.process.terminate()
        assert command.process.wait(WITHIN) in (0, 143)


def test_a_second_ctrl_c_ends_a_command_that_is_still_stopping(tmp_path: Path) -> None:
    script = (
        "import asyncio\n"
        "from relay.__main__ import _leave_on_signals\n"
        "from relay.cli.interrupt import calling_on_signal\n"
        "async def serve():\n"
        "    with calling_on_signal(lambda: print('stopping')):\n"
        "        print('ready')\n"
        "        await asyncio.Event().wait()\n"
        "_leave_on_signals()\n"
        "asyncio.run(serve())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for said in ("ready", "stopping"):
                assert process.stdout.readline() == f"{said}\n"
                process.send_signal(signal.SIGINT)
            assert process.wait(WITHIN) == 130, "a second Ctrl-C must end it at once"
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "marker", "code"),
    [
        (("check",), "relay.cli.probes", 130),
        (("listen", "--port", "0"), "relay.cli.output.listen_output", 130),
        (("listen", "--port", "0"), "Ctrl-C ends.", 0),
        (("init", "--force"), "relay.dispatch.signing", 130),
        (("events", "tail"), "relay.cli.log", 130),
        (("--help",), "relay.cli.app", 130),
    ],
)
def test_ctrl_c_ends_other_commands_quietly(tmp_path: Path, arguments: Sequence[str], marker: str, code: int) -> None:
    with started(tmp_path, *arguments) as command:
        command.until(marker)
        # at the end of Python the system's own action is back, which a shell shows as 130, too
        assert command.interrupt() in (0, code, -signal.SIGINT)
        assert command.noise() == [], "Ctrl-C must leave no traceback on the terminal"


@needs_moonshine
@pytest.mark.speech
@pytest.mark.parametrize("marker", ["rich.live", "moonshine_voice", "stream.started"])
def test_ctrl_c_ends_the_demo_quietly_and_leaves_nothing(tmp_path: Path, marker: str) -> None:
    (tmp_path / "tmp").mkdir()
    with started(tmp_path, "demo", TMPDIR=str(tmp_path / "tmp")) as command:
        command.until(marker)
        assert command.interrupt() in (0, 130), "Ctrl-C must end it as a shell expects"
        assert command.noise() == [], "Ctrl-C must leave no traceback on the terminal"
        assert list((tmp_path / "tmp").glob("speech-relay-demo-*")) == [], "the demo must leave no files behind"
