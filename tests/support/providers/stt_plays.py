"""Runs sessions with speech providers' stand-ins, and collects their results."""

import asyncio
import logging
import wave
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relay.capture.audio.wav import WavSource
from relay.config.capture import Provider
from relay.speech.observations import SttEnded, SttStarted, SttTranscript
from tests.support.audio.speech import Heard, listening, speech, write_wav
from tests.support.providers.stt_known import PROVIDERS, Known
from tests.support.providers.stt_server import SttServer


@dataclass
class Played:
    """One session's observations, and its operator's messages."""

    heard: Heard = field(default_factory=Heard)
    faults: list[str] = field(default_factory=list)
    connections: int = 0
    closing_s: float = 0.0

    @property
    def finals(self) -> list[SttTranscript]:
        """Those with words."""
        return [said for said in self.heard.of(SttTranscript) if said.final and said.text]

    @property
    def interims(self) -> list[SttTranscript]:
        return [said for said in self.heard.of(SttTranscript) if not said.final]

    @property
    def edges(self) -> list[type]:
        """The provider's starts and ends, in order."""
        return [type(observation) for observation in self.heard if isinstance(observation, SttStarted | SttEnded)]

    @property
    def paired(self) -> bool:
        """Whether each start has its end before the next one."""
        return self.edges == [SttStarted, SttEnded] * (len(self.edges) // 2)


def opening(path: Path, silence_s: int = 0) -> Path:
    """Two seconds of speech, as a file, then silence."""
    with wave.open(str(speech("beckett.wav")), "rb") as whole:
        rate = whole.getframerate()
        return write_wav(path, whole.readframes(2 * rate) + bytes(2 * rate * silence_s), rate=rate)


async def play(
    wav: Path,
    stt: Provider,
    server: SttServer | None,
    until: Callable[[Played], bool] | None,
    *,
    vad: str = "silero",
    realtime: bool = True,
    then: Callable[[Played], Awaitable[None]] | None = None,
) -> Played:
    """Listen to the file until ``then`` has returned and ``until`` holds, or to its end, and close."""
    played = Played()
    loop = asyncio.get_running_loop()
    async with listening(
        WavSource(wav, realtime=realtime),
        played.heard,
        vad=Provider(provider=vad),
        stt=stt,
        realtime=realtime,
        on_fault=played.faults.append,
    ) as session:
        if then is not None:
            await then(played)
        if until is not None:
            await played.heard.until(lambda _: until(played), within=30.0)
        else:
            await session.ended()
        began = loop.time()
        await session.close("unpublished")
        played.closing_s = loop.time() - began
    played.connections = len(server.connections) if server is not None else 0
    return played


@dataclass(frozen=True)
class Case:
    """``remote``: it is about the connection. ``live``: at the pace of speech, so most of it is waiting."""

    play: Callable[[Known, Path], Awaitable[Played]]
    remote: bool
    live: bool


class Stage:
    """Runs the cases for all providers: all live cases concurrently, and all others concurrently, when a test first
    needs one."""

    def __init__(self, runner: asyncio.Runner, folder: Path) -> None:
        self._runner = runner
        self._folder = folder
        self._cases = dict[str, Case]()
        self._played = dict[tuple[str, str], Played | BaseException]()
        self.lines: list[str] = []
        """The lines logged meanwhile."""

    def add(self, name: str, case: Case) -> None:
        self._cases[name] = case

    def __call__(self, name: str, provider: str) -> Played:
        known, case = PROVIDERS[provider], self._cases[name]
        if case.remote and known.stand_in is None:
            pytest.skip("runs on this machine: it has no connection, no key and no frames")
        if not known.installed:
            pytest.skip(f"speech-relay[{known.provider}] is not installed")
        if (name, provider) not in self._played:
            self._runner.run(self._all(live=case.live))
        played = self._played[name, provider]
        if isinstance(played, BaseException):
            raise played
        return played

    async def _all(self, *, live: bool) -> None:
        todo = {
            (name, provider): case.play(known, self._folder)
            for name, case in self._cases.items()
            for provider, known in PROVIDERS.items()
            if case.live is live and known.installed and not (case.remote and known.stand_in is None)
        }
        with _logged(self.lines):
            played = await asyncio.gather(*todo.values(), return_exceptions=True)
        self._played.update(zip(todo, played, strict=True))


@contextmanager
def _logged(lines: list[str]) -> Iterator[None]:
    """Keep every line logged meanwhile, at any level, with its attached data."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{self.format(record)} {vars(record)}")

    handler, root = Keep(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
