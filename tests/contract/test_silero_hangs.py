"""The network that all streams share hangs: the streams in that run restart, and every stream is heard again."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import vad
from livekit.plugins import silero

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Providers
from relay.capture.health import inference_thread as runner
from relay.capture.session.stream_session import StreamSession
from relay.capture.vad import silero_network as networks
from relay.capture.vad.silero import TogetherVad
from relay.capture.vad.silero_network import WINDOW, Network, parts
from relay.clock import SystemClock
from relay.config.capture import Provider
from relay.speech.observations import SourceDown, SourceUp, VadStarted
from tests.support.audio.speech import Heard, a_track, speech

pytestmark = pytest.mark.speech

HUNG_AFTER_S = 0.5


class Hanging:
    """The network, which hangs in its next ``hang`` runs until it is released."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.hang = 0
        self.hung = threading.Semaphore(0)
        """One for each run that has begun to hang."""
        self._released = threading.Event()

    def run(self, outputs: None, inputs: dict[str, Any]) -> list[Any]:
        if self.hang:
            self.hang -= 1
            self.hung.release()
            self._released.wait(60)
        found: list[Any] = self._inner.run(outputs, inputs)
        return found

    def release(self) -> None:
        self._released.set()

    async def hangs(self) -> None:
        assert await asyncio.to_thread(self.hung.acquire, timeout=10)


@pytest.fixture
def plugin() -> silero.VAD:
    loaded = silero.VAD.load()
    assert isinstance(loaded, silero.VAD)
    return loaded


@pytest.fixture
async def shared(plugin: silero.VAD, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Hanging, TogetherVad]]:
    monkeypatch.setattr(networks, "HUNG_AFTER_S", HUNG_AFTER_S)
    monkeypatch.setattr(runner, "LOOK_EVERY_S", HUNG_AFTER_S / 5)
    known = parts(plugin)
    assert known is not None
    session = Hanging(known[0])
    network = Network(session)
    yield session, TogetherVad(plugin, network, known[1])
    session.release()
    network.close()


def a_window() -> rtc.AudioFrame:
    return rtc.AudioFrame(bytes(2 * WINDOW), SAMPLE_RATE, 1, WINDOW)


def threads() -> int:
    return [thread.name for thread in threading.enumerate()].count("silero")


async def threads_are(number: int) -> None:
    async with asyncio.timeout(30):
        while threads() != number:  # noqa: ASYNC110 - a thread does not tell its end
            await asyncio.sleep(0.01)


async def refused(stream: vad.VADStream) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(RuntimeError, match="the thread of silero hangs"):
            await anext(stream)
    await stream.aclose()


async def answered(stream: vad.VADStream) -> None:
    async with asyncio.timeout(30):
        assert (await anext(stream)).type is vad.VADEventType.INFERENCE_DONE


async def test_who_is_in_a_run_that_hangs_fails_and_who_waits_for_it_is_heard(
    shared: tuple[Hanging, TogetherVad],
) -> None:
    session, detector = shared
    unforeseen = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, trouble: unforeseen.append(trouble))
    await threads_are(0)
    session.hang = 1
    asked, waits = detector.stream(), detector.stream()
    asked.push_frame(a_window())
    await session.hangs()
    for _ in range(3):
        waits.push_frame(a_window())

    await refused(asked)
    for _ in range(3):
        await answered(waits)

    session.release()
    await threads_are(1)
    waits.push_frame(a_window())
    await answered(waits)
    await waits.aclose()
    assert unforeseen == [], "the late answer is nobody's"


async def test_so_many_may_hang_and_with_one_that_comes_back_it_goes_on(shared: tuple[Hanging, TogetherVad]) -> None:
    session, detector = shared
    session.hang = 100
    await threads_are(0)
    for _ in range(runner.MOST_HANGING):
        stream = detector.stream()
        stream.push_frame(a_window())
        await session.hangs()
        await refused(stream)
    for _ in range(2):
        stream = detector.stream()
        stream.push_frame(a_window())
        await refused(stream)
    assert threads() == runner.MOST_HANGING

    session.hang = 0
    session.release()
    await threads_are(0)
    again = detector.stream()
    again.push_frame(a_window())
    await answered(again)
    await again.aclose()


async def test_a_process_that_was_frozen_is_given_its_time(shared: tuple[Hanging, TogetherVad]) -> None:
    session, detector = shared
    session.hang = 1
    stream = detector.stream()
    stream.push_frame(a_window())
    await session.hangs()
    time.sleep(3 * HUNG_AFTER_S)  # noqa: ASYNC251 - it is the event loop that stands still
    asyncio.get_running_loop().call_later(HUNG_AFTER_S / 5, session.release)
    await answered(stream)
    await stream.aclose()


async def test_everybody_in_the_room_is_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "HUNG_AFTER_S", HUNG_AFTER_S)
    monkeypatch.setattr(runner, "LOOK_EVERY_S", HUNG_AFTER_S / 5)
    hangs, release = threading.Event(), threading.Event()
    real = Network._run

    def run(self: Network, batch: Any) -> list[float]:
        if all(heard.of(VadStarted) for heard in everybody) and not hangs.is_set():
            hangs.set()
            release.wait(60)
        return real(self, batch)

    monkeypatch.setattr(Network, "_run", run)
    providers = Providers(Provider(provider="silero"), Provider(provider="none"))
    detectors = providers.detectors()
    assert isinstance(detectors.shared_vad, TogetherVad)
    everybody = [Heard(), Heard()]
    sessions = [
        StreamSession(
            a_track(WavSource(speech("two_cities.wav"), realtime=True)), detectors, heard, SystemClock(), realtime=True
        )
        for heard in everybody
    ]
    for session in sessions:
        await session.start()
    for heard in everybody:
        await heard.until(lambda heard: hangs.is_set() and len(heard.of(VadStarted)) >= 2, within=40)
    told = [one for heard in everybody for one in heard if isinstance(one, SourceDown | SourceUp)]
    assert {type(one) for one in told} == {SourceDown, SourceUp}
    assert {one.detector for one in told} == {"vad"}
    release.set()
    for session in sessions:
        await session.close("unpublished")
    await providers.aclose()
