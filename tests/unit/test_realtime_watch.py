"""What is made of a realtime model that says nothing, by hand-set time."""

import random
import wave

import pytest
from livekit import rtc

from relay.capture.health.watchdog import Loudness, level_db
from relay.capture.realtime.health import RealtimeWatch
from tests.support.audio.speech import speech

STEP_S = 0.1


def frame(amplitude: int) -> rtc.AudioFrame:
    """A tenth of a second of noise."""
    source = random.Random(amplitude)
    samples = [source.randint(-amplitude, amplitude) for _ in range(1_600)]
    return rtc.AudioFrame(b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples), 16_000, 1, 1_600)


QUIET, LOUD = frame(20), frame(8_000)


def told(watch: RealtimeWatch, audio: str, *, since: float = 0.0, speaking: bool = False) -> list[tuple[float, str]]:
    """Everything that it says; ``audio`` has a letter for each tenth of a second, ``L`` for loud."""
    said = list[tuple[float, str]]()
    for n, letter in enumerate(audio):
        now = since + (n + 1) * STEP_S
        watch.heard(LOUD if letter == "L" else QUIET, speaking=speaking)
        if (suspicion := watch.suspects(now)) is not None:
            said.append((round(now, 1), suspicion))
    return said


def a_watch(*, answers: bool = True) -> RealtimeWatch:
    watch = RealtimeWatch()
    watch.opened(0.0)
    if answers:
        watch.asked(0.0)
        watch.sign_of_life(0.0)
        watch.answered()
    return watch


def test_a_silent_model_is_asked_and_one_that_does_not_answer_is_hung() -> None:
    watch = a_watch()
    assert told(watch, "." * 100) == [(10.0, "ask")]
    watch.asked(10.0)
    assert told(watch, "." * 60, since=10.0) == [(15.0, "hung")]


def test_an_answer_is_enough_and_it_is_asked_again_later() -> None:
    watch = a_watch()
    told(watch, "." * 100)
    watch.asked(10.0)
    watch.sign_of_life(10.2)
    assert told(watch, "." * 110, since=10.2) == [(20.2, "ask")]


def test_a_connection_whose_first_message_is_not_answered_is_hung() -> None:
    watch = a_watch(answers=False)
    watch.asked(1.0)
    assert told(watch, "." * 100, since=1.0) == [(6.0, "hung")]


@pytest.mark.parametrize("refuses", [False, True])
def test_a_model_that_is_not_known_to_answer_is_not_asked(refuses: bool) -> None:
    watch = a_watch(answers=refuses)
    watch.refused()
    assert told(watch, "." * 1_000) == []


def test_a_process_that_was_frozen_is_not_the_models_fault() -> None:
    watch = a_watch()
    told(watch, "." * 100)
    watch.asked(10.0)
    assert told(watch, "." * 20, since=70.0) == []
    assert told(watch, "." * 40, since=72.0) == [(74.1, "hung")]


def test_what_sounds_like_speech_and_is_not_heard_is_noticed_less_and_less_often() -> None:
    watch = a_watch(answers=False)
    heard = [at for at, what in told(watch, "LLLL." * 600) if what == "deaf"]
    gaps = [round(later - earlier) for earlier, later in zip([0.0, *heard], heard, strict=False)]
    assert gaps[0] == pytest.approx(13, abs=1)
    assert gaps[1] == pytest.approx(26, abs=2)
    assert gaps[2:4] == [pytest.approx(53, abs=3), pytest.approx(80, abs=4)]

    watch.said(300.0)
    assert told(watch, "LLLL." * 25, since=300.0) == []
    assert [what for _, what in told(watch, "LLLL." * 5, since=312.5)] == ["deaf"]


def test_clicks_and_a_hum_that_goes_on_are_no_speech() -> None:
    assert told(a_watch(answers=False), ("L" + "." * 9) * 300) == []
    assert told(a_watch(answers=False), "." * 20 + "L" * 3_000) == []


def test_speech_that_has_no_end_in_silence_is_noticed_and_a_long_one_is_not() -> None:
    watch = a_watch(answers=False)
    watch.said(0.0)
    assert told(watch, "LLLL." * 200, speaking=True) == []
    assert told(watch, "." * 110, since=100.0, speaking=True) == [(110.0, "deaf")]


def test_audio_that_comes_faster_than_it_plays_is_given_the_models_time() -> None:
    watch = a_watch(answers=False)
    for n in range(3_000):
        watch.heard(LOUD if n % 5 else QUIET, speaking=False)
        assert watch.suspects(n / 1_000) is None


def test_recorded_speech_stands_out_and_its_pauses_do_not() -> None:
    loudness, loud, all_of_it = Loudness(), 0, 0
    with wave.open(str(speech("beckett.wav"))) as file:
        assert file.getframerate() == 16_000
        while pcm := file.readframes(320):
            all_of_it += 1
            loud += loudness.loud(level_db(rtc.AudioFrame(pcm.ljust(640, b"\0"), 16_000, 1, 320)), 0.02)
    assert 0.3 < loud / all_of_it < 0.8


def test_levels_are_relative_to_full_scale() -> None:
    assert level_db(rtc.AudioFrame.create(16_000, 1, 320)) == -100.0
    assert level_db(rtc.AudioFrame(b"\x00\x80" * 320, 16_000, 1, 320)) == pytest.approx(0.0)
    assert level_db(rtc.AudioFrame(b"\x00\x40" * 320, 16_000, 1, 320)) == pytest.approx(-6.02, abs=0.01)
