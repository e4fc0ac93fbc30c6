"""Whatever the probabilities and thresholds: what is made of them is what the Silero plugin makes of them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from livekit import rtc
from livekit.agents import vad
from livekit.plugins import silero
from livekit.plugins.silero.vad import VADStream

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.vad.silero import Hysteresis
from relay.capture.vad.silero_network import WINDOW, Thresholds, parts

# Half a window more than so many: what exactly so many come to hangs on the plugin's sum of floats.
windows = st.integers(0, 8).map(lambda count: (count + 0.5) * WINDOW / SAMPLE_RATE)
thresholds = st.builds(
    Thresholds,
    activation=st.sampled_from([0.3, 0.5, 0.8]),
    deactivation=st.sampled_from([0.01, 0.15, 0.35]),
    min_speech_s=windows,
    min_silence_s=windows,
)
probabilities = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0])), min_size=1, max_size=12
).map(lambda runs: [probability for count, probability in runs for _ in range(count)])


class _Model:
    """The plugin's model, with its answers given."""

    window_size_samples = WINDOW
    sample_rate = SAMPLE_RATE

    def __init__(self, answers: Sequence[float]) -> None:
        self._answers = iter(answers)

    def reset(self) -> None:
        pass

    def __call__(self, window: Any) -> float:
        return next(self._answers)


def seen(event: vad.VADEvent) -> tuple[Any, ...]:
    return (
        event.type,
        event.samples_index,
        event.speaking,
        *(
            round(value, 3)
            for value in (
                event.timestamp,
                event.speech_duration,
                event.silence_duration,
                event.raw_accumulated_speech,
                event.raw_accumulated_silence,
                event.probability,
            )
        ),
    )


async def of_the_plugin(rules: Thresholds, answers: Sequence[float]) -> list[tuple[Any, ...]]:
    detector = silero.VAD.load(
        activation_threshold=rules.activation,
        deactivation_threshold=rules.deactivation,
        min_speech_duration=rules.min_speech_s,
        min_silence_duration=rules.min_silence_s,
    )
    assert isinstance(detector, silero.VAD)
    known = parts(detector)
    assert known is not None
    assert known[1] == rules
    stream = VADStream(detector, detector._opts, _Model(answers))  # type: ignore[arg-type]  # as much as it needs
    for _ in answers:
        stream.push_frame(rtc.AudioFrame(bytes(2 * WINDOW), SAMPLE_RATE, 1, WINDOW))
    stream.end_input()
    said = [seen(event) async for event in stream]
    await stream.aclose()
    return said


@settings(max_examples=60, deadline=None)
@given(rules=thresholds, answers=probabilities)
def test_the_rules_are_the_plugins(rules: Thresholds, answers: list[float]) -> None:
    ours = Hysteresis(rules)
    said = [seen(event) for answer in answers for event in ours.heard(answer)]
    assert said == asyncio.run(of_the_plugin(rules, answers))
