"""Many participants who join at once. A Go program (``tests/crowd``), since fifty Python clients fill a core."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
import wave
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.cli import ROOT
from tests.support.livekit.livekit_server import LiveKitServer

SOURCE = ROOT / "tests/crowd"

_AFTERWARDS_S = 1
"""Silence after the words, which shows a listener that they are over."""


class Crowd:
    """The program, as the test controls it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def published(self) -> list[int]:
        """Wait until all participants have joined and published. When each began to publish, epoch milliseconds."""
        assert self._process.stdout is not None
        said, *times = (await self._process.stdout.readline()).split() or [b""]
        assert said == b"published", "it ended before"
        return [int(time) for time in times]

    def speak(self, many: int) -> None:
        """Let this many of those who have not spoken yet speak now; those who spoke until now fall silent."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % many)


@contextlib.asynccontextmanager
async def crowd(
    program: Path, server: LiveKitServer, rooms: str | Sequence[str], wav: Path, people: Sequence[str], *,
    antiphase: bool = False, speaking: bool = False,
) -> AsyncIterator[Crowd]:  # fmt: skip
    """Participants who join at once, say the WAV's content on request, and finally leave.

    ``rooms``: one for all of ``people``, or one for each. ``antiphase``: on stereo tracks, whose right channel is the
    inverted left one. ``speaking``: they speak from the beginning.
    """
    words = [base64.b64encode(packet).decode() for packet in await asyncio.to_thread(_opus, wav, antiphase)]
    process = await asyncio.create_subprocess_exec(
        program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        theirs = [rooms] * len(people) if isinstance(rooms, str) else rooms
        tokens = [server.token(who, room) for who, room in zip(people, theirs, strict=True)]
        call = {"url": server.url, "tokens": tokens, "words": words, "stereo": antiphase, "speak": speaking}
        process.stdin.write(json.dumps(call).encode() + b"\n")
        yield Crowd(process)
    finally:
        process.stdin.close()
        await _ended(process)


def built(folder: Path) -> Path:
    """Build the program. A minute the first time on a machine, a second after that."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        reason = "no Go, with which the people of the crowd are built"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    binary = folder / "crowd"
    build = [go, "build", "-buildvcs=false", "-o", str(binary), "."]
    subprocess.run(build, cwd=SOURCE, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
    return binary


def _opus(wav: Path, antiphase: bool) -> list[bytes]:
    """The WAV, then silence, in packets of 20 ms."""
    with wave.open(str(wav)) as file:
        rate, pcm = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16)
    said = np.concatenate([pcm, np.zeros(_AFTERWARDS_S * rate, np.int16)])
    layout = "stereo" if antiphase else "mono"
    said = np.column_stack([said, -said]) if antiphase else said.reshape(-1, 1)
    encoder = av.AudioCodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, layout, "s16"
    encoder.options = {"application": "voip", "frame_duration": "20"}
    step = rate // 50
    packets: list[bytes] = []
    for at in range(0, len(said) - step + 1, step):
        frame = av.AudioFrame.from_ndarray(said[at : at + step].reshape(1, -1), "s16", layout)
        frame.sample_rate = rate
        packets += map(bytes, encoder.encode(frame))
    return packets


async def _ended(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
