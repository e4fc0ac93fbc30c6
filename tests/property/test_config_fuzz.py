"""Thousands of mutated configurations: each is taken, or refused in lines that say where; none is a traceback.

``make fuzz`` runs 10,000; without it, a part of them. A failure names the seed: ``mutant(seed)`` is the file.
"""

import asyncio
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from relay.app.reload import Reload
from relay.cli.options import ConfigSource
from relay.cli.output.plan import plan, sentences
from relay.cli.probes import probe_outbox
from relay.cli.secret_probes import probe_secrets
from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.config.problems import Mistakes
from relay.dispatch.endpoint.route import Route
from tests.support.cli import SECRET, speech_relay
from tests.support.mutations import Mutant, mutant

FILES = int(os.environ.get("FUZZ_FILES", "1000"))
PROCESSES = max(8, FILES // 200)
RELOADS = FILES if "FUZZ_FILES" in os.environ else 600
LINE = re.compile(r"[^\n]*(config\.yaml|\.env|environment)[^\n]*: [^\n]+|… and more; correct these first")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, and this process's variables put back at the end: loading puts those of .env into it."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("SPEECH_RELAY", "LIVEKIT_"))]:
        del os.environ[name]
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


def write(folder: Path, files: Mutant) -> None:
    (folder / "config.yaml").write_bytes(files.config)
    (folder / ".env").write_bytes(files.dotenv)


def use(config: Config) -> None:
    """What a configuration that was taken must serve for at once."""
    sentences(config)
    plan(config)
    probe_outbox(config.outbox)
    probe_secrets(config)
    for endpoint in config.endpoints:
        route = Route(endpoint)
        route.subscription.wants_stream("room", "identity")
        route.subscription.wants_type("transcript.final")


def refused_well(message: str) -> bool:
    return all(LINE.fullmatch(line) and len(line) < 2000 for line in message.split("\n"))


def test_a_mutated_configuration_is_taken_or_refused_in_lines(folder: Path) -> None:
    environ = dict(os.environ)
    taken = 0
    for seed in range(FILES):
        write(folder, mutant(seed))
        os.environ.clear()
        os.environ.update(environ)
        refused = None
        try:
            use(ConfigSource(Path("config.yaml")).load())
        except Mistakes as mistakes:
            refused = str(mistakes)
        except Exception as error:
            raise AssertionError(f"seed {seed} is neither refused nor can it be used") from error
        assert refused is None or refused_well(refused), f"seed {seed}: {refused}"
        taken += refused is None
    assert FILES / 20 < taken < FILES * 19 / 20, "mutations too strong or too weak to find anything"


async def test_a_relay_that_reloads_mutated_configurations_goes_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "relay")  # a full run would keep 10,000 records
    good = f"endpoints: [{{name: good, url: 'http://127.0.0.1:9/', secret: {SECRET}}}]"
    path = folder / "config.yaml"
    path.write_text(good)
    applied: asyncio.Queue[list[str]] = asyncio.Queue()

    async def apply(endpoints: Sequence[Endpoint]) -> None:
        for endpoint in endpoints:
            Route(endpoint)
        applied.put_nowait([endpoint.name for endpoint in endpoints])

    class Source:
        """The real one, which also says when it was asked."""

        def __init__(self) -> None:
            self._real = ConfigSource(path)
            self.files = self._real.files
            self.asked = asyncio.Event()
            self.loop = asyncio.get_running_loop()

        def load(self) -> Config:
            self.loop.call_soon_threadsafe(self.asked.set)
            return self._real.load()

    source, asked = Source(), asyncio.Event()
    duty = asyncio.create_task(Reload(source, source.load(), apply, asked=asked, every_s=60).run())
    for seed in range(RELOADS):
        write(folder, mutant(seed))
        source.asked.clear()
        asked.set()
        asking = asyncio.create_task(source.asked.wait())
        await asyncio.wait([asking, duty], return_when=asyncio.FIRST_COMPLETED)
        assert not duty.done(), f"seed {seed} ended the reload"
    path.write_text(good.replace("good", "last"))
    (folder / ".env").write_text("")
    asked.set()
    async with asyncio.timeout(30):
        while await applied.get() != ["last"]:
            pass
    duty.cancel()
    with suppress(asyncio.CancelledError):
        await duty


def test_the_command_line_refuses_a_mutated_configuration_with_exit_2(tmp_path: Path) -> None:
    step = max(1, FILES // PROCESSES)
    for seed in range(0, FILES, step):
        write(tmp_path, mutant(seed))
        result = speech_relay("endpoints", "--json", cwd=tmp_path)
        assert "Traceback" not in result.stderr, f"seed {seed}: {result.stderr}"
        assert result.returncode in (0, 1, 2), f"seed {seed}: exit code {result.returncode}"
        if result.returncode == 2 and "outbox" not in result.stderr:
            assert refused_well(result.stderr.rstrip("\n")), f"seed {seed}: {result.stderr}"
