"""Moonshine's thread, which all streams share, hangs: they go on with another one, and no word is lost."""

import asyncio
import threading
from typing import Any

import pytest

from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Detectors, Providers
from relay.capture.health import inference_thread as runner
from relay.capture.session.stream_session import StreamSession
from relay.capture.stt import moonshine
from relay.clock import SystemClock
from relay.config.capture import Provider
from relay.speech.observations import SttTranscript
from tests.support.audio.speech import Heard, a_track, needs_moonshine, speech

pytestmark = [pytest.mark.speech, needs_moonshine]


LAST_WORDS = ["tried.", "failed.", "matter.", "again.", "again.", "better."]
"""Of each line. The first ones come as it hears them: fail, fare."""


def last_words(heard: Heard) -> list[str]:
    return [said.text.split()[-1] for said in heard.of(SttTranscript) if said.final]


async def listen(detectors: Detectors, heard: Heard) -> None:
    source = WavSource(speech("beckett.wav"), realtime=True)
    session = StreamSession(a_track(source), detectors, heard, SystemClock(), realtime=True)
    await session.start()
    try:
        await heard.until(lambda heard: len(last_words(heard)) == len(LAST_WORDS), within=120)
    finally:
        await session.close("unpublished")


async def test_everybody_has_all_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moonshine, "_HUNG_AFTER_S", 3.0)
    monkeypatch.setattr(runner, "LOOK_EVERY_S", 0.25)
    everybody = [Heard(), Heard()]
    hung, release = threading.Event(), threading.Event()
    real = moonshine._Engine.hear

    def hear(self: Any, audio: Any) -> Any:
        if not hung.is_set() and all(last_words(heard) for heard in everybody):
            hung.set()
            release.wait(100)
        return real(self, audio)

    monkeypatch.setattr(moonshine._Engine, "hear", hear)
    providers = Providers(Provider(provider="silero"), Provider(provider="moonshine"))
    detectors = providers.detectors()
    try:
        await asyncio.gather(*(listen(detectors, heard) for heard in everybody))
    finally:
        release.set()
        await providers.aclose()
    assert hung.is_set()
    for heard in everybody:
        assert last_words(heard) == LAST_WORDS
