"""Many streams on one run of Silero's network: each hears what the plugin's own stream hears."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import inference, vad
from livekit.plugins import silero

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Providers
from relay.capture.vad.silero import TogetherVad
from relay.capture.vad.silero_network import WINDOW, Network, parts
from relay.config.capture import Provider
from relay.speech.observations import VadEnded, VadStarted
from tests.support.audio.speech import Heard, listening, speech

pytestmark = pytest.mark.speech


@pytest.fixture(scope="module")
def plugin() -> silero.VAD:
    # a silence that is not so many windows exactly: there the plugin's sum of floats decides
    loaded = silero.VAD.load(min_silence_duration=0.3)
    assert isinstance(loaded, silero.VAD)
    return loaded


@pytest.fixture
async def together(plugin: silero.VAD) -> AsyncIterator[TogetherVad]:
    known = parts(plugin)
    assert known is not None
    session, thresholds = known
    network = Network(session)
    yield TogetherVad(plugin, network, thresholds)
    network.close()


async def pcm(recording: str) -> bytes:
    frames = [frame async for frame in WavSource(speech(recording), realtime=False)]
    return b"".join(bytes(frame.data) for frame in frames)


def frames(audio: bytes, sizes: Callable[[], int] = lambda: WINDOW) -> list[rtc.AudioFrame]:
    made = []
    while audio:
        size = min(sizes(), len(audio) // 2)
        made.append(rtc.AudioFrame(audio[: size * 2], SAMPLE_RATE, 1, size))
        audio = audio[size * 2 :]
    return made


async def heard(detector: vad.VAD, audio: Sequence[rtc.AudioFrame], *, flush_after: int | None = None) -> list[Any]:
    """All that is said of the audio, but for how long it took."""
    stream = detector.stream()
    for number, frame in enumerate(audio):
        if number == flush_after:
            stream.flush()
        stream.push_frame(frame)
    stream.end_input()
    said = [
        (
            event.type.value,
            event.samples_index,
            round(event.timestamp, 3),
            round(event.speech_duration, 3),
            round(event.silence_duration, 3),
            round(event.raw_accumulated_speech, 3),
            round(event.raw_accumulated_silence, 3),
            event.speaking,
            pytest.approx(event.probability, abs=1e-4),
        )
        async for event in stream
    ]
    await stream.aclose()
    return said


@pytest.mark.parametrize("recording", ["beckett.wav", "two_cities.wav"])
async def test_everybody_is_heard_as_if_alone(recording: str, plugin: silero.VAD, together: TogetherVad) -> None:
    audio = frames(await pcm(recording))
    alone = await heard(plugin, audio)
    assert {"start_of_speech", "end_of_speech"} <= {kind for kind, *_ in alone}
    # each begins at another place, so that no two windows of a run are alike
    late = [audio[begin:] for begin in range(0, 80, 10)]
    among_others, *_ = await asyncio.gather(*(heard(together, each) for each in late))
    assert among_others == alone


async def test_frames_of_any_length(plugin: silero.VAD, together: TogetherVad) -> None:
    dice = random.Random(7)
    audio = frames(await pcm("beckett.wav"), lambda: dice.choice([1, 160, 320, 511, 512, 513, 1600]))
    assert await heard(together, audio) == await heard(plugin, audio)


async def test_a_flush_in_mid_word_begins_again(plugin: silero.VAD, together: TogetherVad) -> None:
    audio = frames(await pcm("beckett.wav"), lambda: 400)
    said = await heard(together, audio, flush_after=33)
    assert said == await heard(plugin, audio, flush_after=33)
    assert [at for kind, at, *_ in said if kind == "inference_done"].count(WINDOW) == 2, "the clock begins again"


async def test_a_closed_stream_takes_nothing_and_ends(together: TogetherVad) -> None:
    stream = together.stream()
    (frame,) = frames(bytes(2 * WINDOW))
    stream.push_frame(frame)
    await stream.aclose()
    assert [event async for event in stream] == []
    with pytest.raises(RuntimeError):
        stream.push_frame(frame)
    with pytest.raises(RuntimeError):
        stream.flush()


async def test_audio_of_another_rate_is_refused(together: TogetherVad) -> None:
    stream = together.stream()
    with pytest.raises(RuntimeError, match="48000 Hz"):
        stream.push_frame(rtc.AudioFrame(bytes(960), 48_000, 1, 480))
    await stream.aclose()


class _Fragile:
    """The network, until it breaks. ``runs`` has how many windows each run had."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.broken = False
        self.runs: list[int] = []

    def run(self, outputs: None, inputs: dict[str, Any]) -> list[Any]:
        self.runs.append(len(inputs["input"]))
        if self.broken:
            raise ValueError("out of memory")
        found: list[Any] = self.inner.run(outputs, inputs)
        return found


@pytest.fixture
async def watched(plugin: silero.VAD) -> AsyncIterator[tuple[_Fragile, TogetherVad]]:
    known = parts(plugin)
    assert known is not None
    session = _Fragile(known[0])
    network = Network(session)
    yield session, TogetherVad(plugin, network, known[1])
    network.close()


async def test_who_has_audio_at_about_the_same_time_shares_a_run(watched: tuple[_Fragile, TogetherVad]) -> None:
    session, detector = watched
    streams = [detector.stream() for _ in range(3)]
    (frame,) = frames(bytes(2 * WINDOW))
    for stream in streams:
        stream.push_frame(frame)
    for stream in streams:
        await anext(stream)
        await stream.aclose()
    assert session.runs == [3]


async def test_who_is_alone_waits_for_nobody(
    watched: tuple[_Fragile, TogetherVad], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, detector = watched
    alone = detector.stream()
    (frame,) = frames(bytes(2 * WINDOW))
    alone.push_frame(frame)
    await anext(alone)
    monkeypatch.setattr("relay.capture.vad.silero_network.GATHER_S", 3600.0)
    async with asyncio.timeout(30):
        for _ in range(2):
            alone.push_frame(frame)
            await anext(alone)
    await alone.aclose()
    assert session.runs == [1, 1, 1]


async def test_more_than_fit_in_a_run_take_turns(watched: tuple[_Fragile, TogetherVad]) -> None:
    """After the process was held up everybody has audio that waits: nobody's third window before everybody's first."""
    session, detector = watched
    streams = [detector.stream() for _ in range(100)]
    (frame,) = frames(bytes(2 * WINDOW))
    for stream in streams:
        for _ in range(3):
            stream.push_frame(frame)
    said: list[int] = []

    async def listen(number: int, stream: vad.VADStream) -> None:
        for _ in range(3):
            await anext(stream)
            said.append(number)

    await asyncio.gather(*(listen(*each) for each in enumerate(streams)))
    assert session.runs == [64, 64, 64, 64, 44]
    assert sorted(said[:128]) == sorted([*range(100), *range(28)])
    for stream in streams:
        await stream.aclose()


async def test_what_waits_of_a_stream_that_is_closed_is_not_looked_at(watched: tuple[_Fragile, TogetherVad]) -> None:
    session, detector = watched
    left, stays = detector.stream(), detector.stream()
    (frame,) = frames(bytes(2 * WINDOW))
    for _ in range(100):
        left.push_frame(frame)
    await anext(left)
    await left.aclose()
    for _ in range(50):
        stays.push_frame(frame)
        await anext(stays)
    await stays.aclose()
    assert 50 < sum(session.runs) < 60


async def test_a_network_that_fails_fails_the_streams_that_asked_and_goes_on(
    watched: tuple[_Fragile, TogetherVad],
) -> None:
    session, detector = watched
    (frame,) = frames(bytes(2 * WINDOW))

    session.broken = True
    asked, idle = detector.stream(), detector.stream()
    asked.push_frame(frame)
    with pytest.raises(RuntimeError, match="out of memory"):
        await anext(asked)

    session.broken = False
    idle.push_frame(frame)
    assert (await anext(idle)).type is vad.VADEventType.INFERENCE_DONE
    await asked.aclose()
    await idle.aclose()


async def test_what_it_needs_of_the_plugin_is_there(plugin: silero.VAD) -> None:
    """``silero.VAD._opts`` and ``._onnx_session``: where they are not, each stream has its own again."""
    assert parts(plugin) is not None
    assert parts(silero.VAD.load(sample_rate=8000)) is None
    assert parts(inference.VAD()) is None

    class Another(silero.VAD):
        pass

    assert parts(Another(session=plugin._onnx_session, opts=plugin._opts)) is None

    later: Any = silero.VAD.load()
    del later._opts
    assert parts(later) is None


async def test_the_configured_detector_listens_together() -> None:
    providers = Providers(Provider(provider="silero"), Provider(provider="none"))
    assert isinstance(providers.detectors().shared_vad, TogetherVad)
    await providers.aclose()
    observed = Heard()
    async with listening(WavSource(speech("beckett.wav"), realtime=False), observed) as session:
        await session.ended()
    assert len(observed.of(VadEnded)) == len(observed.of(VadStarted)) > 1
