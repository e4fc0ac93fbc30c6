"""What the watchdog makes of what comes and what does not, by hand-set time."""

from relay.capture.health.watchdog import Watchdog, Wordless
from relay.speech.observations import SttStarted, VadEnded, VadStarted


def looked(dog: Watchdog, since: float, until: float, heard_ms: int = 0) -> list[tuple[float, str, float]]:
    """Everything that it says, looked at every second after ``since`` up to ``until``."""
    said = list[tuple[float, str, float]]()
    at = since + 1.0
    while at <= until:
        said.extend((at, alarm, missed) for alarm, missed in dog.alarms(at, heard_ms))
        at += 1.0
    return said


def a_dog(*, live: bool = True, muted: bool = False, transcribed: bool = True) -> Watchdog:
    dog = Watchdog(live=live, muted=muted, transcribed=transcribed)
    dog.begins(0.0)
    return dog


def test_audio_that_stops_is_missed_once_and_its_return_says_for_how_long() -> None:
    dog = a_dog()
    assert dog.frame(0.5) is None
    dog.asked()

    assert looked(dog, 0.5, 60.0) == [(5.5, "audio", 5.0)]
    assert dog.frame(61.5) == 61.0
    assert dog.frame(61.52) is None


def test_audio_that_is_withheld_is_not_missed_again_and_its_return_says_for_how_long() -> None:
    dog = a_dog()
    dog.frame(1.0)
    dog.asked()
    assert dog.withheld(2.5) == 1.5
    assert not looked(dog, 2.5, 20.0)
    dog.mute(True, 20.0)
    dog.mute(False, 21.0)
    assert [alarm for _, alarm, _ in looked(dog, 21.0, 30.0)] == ["audio"]
    assert dog.frame(31.0) == 30.0


def test_audio_that_never_comes_is_missed() -> None:
    assert looked(a_dog(), 0.0, 10.0) == [(5.0, "audio", 5.0)]


def test_a_muted_track_need_not_send_anything() -> None:
    dog = a_dog(muted=True)
    assert not looked(dog, 0.0, 60.0)

    dog.mute(False, 60.0)
    assert looked(dog, 60.0, 70.0) == [(65.0, "audio", 5.0)]


def test_a_file_may_take_its_time_and_its_end_is_no_alarm() -> None:
    assert not looked(a_dog(live=False), 0.0, 60.0)

    dog = a_dog()
    dog.frame(1.0)
    dog.over()
    dog.mute(True, 2.0)
    dog.mute(False, 3.0)
    assert not looked(dog, 1.0, 60.0)


def test_a_session_that_takes_nothing_more_is_noticed() -> None:
    dog = a_dog(live=False)
    dog.frame(1.0)
    assert looked(dog, 1.0, 9.0) == [(6.0, "session", 5.0)]

    dog.frame(9.0)
    dog.asked()
    assert not looked(dog, 9.0, 20.0)


def test_voice_activity_that_is_fed_and_says_nothing_is_noticed() -> None:
    dog = a_dog(live=False)
    dog.voice_fed(1.0)
    dog.voice_inferred()
    assert not looked(dog, 1.0, 10.0), "nothing is fed, so nothing is due"

    dog.voice_fed(11.0)
    dog.voice_fed(14.0)
    assert looked(dog, 10.0, 20.0) == [(16.0, "vad", 5.0)]


def test_a_process_that_was_frozen_is_not_the_detectors_fault() -> None:
    dog = a_dog()
    dog.frame(0.9)
    dog.asked()
    dog.voice_fed(0.9)
    dog.alarms(1.0, 0)

    assert dog.alarms(60.0, 0) == []
    assert looked(dog, 60.0, 63.0) == []
    assert {alarm for _, alarm, _ in looked(dog, 63.0, 70.0)} == {"audio", "vad"}


def test_speech_without_a_word_is_noticed_and_then_less_and_less_often() -> None:
    dog = a_dog(live=False)
    dog.observed(VadStarted(1_000, 200), 1_200)
    alarms = [at for at in range(2, 200) if dog.alarms(float(at), at * 1_000)]

    assert alarms == [11, 31, 71, 131, 191]


def test_any_sign_of_life_restarts_the_count() -> None:
    dog = a_dog(live=False)
    dog.observed(VadStarted(1_000, 200), 1_200)
    dog.observed(SttStarted(None), 9_000)

    assert not dog.alarms(18.0, 18_900)
    assert dog.alarms(19.0, 19_000) == [("stt", 0.0)]

    dog.observed(VadEnded(25_000), 25_500)
    dog.observed(SttStarted(None), 25_600)
    dog.observed(VadStarted(30_000, 200), 30_200)
    assert not dog.alarms(39.9, 39_900)


def test_coughs_do_not_add_up_and_words_and_sentences_do() -> None:
    def after(count: int, length_ms: int, *, every_ms: int = 10_000) -> bool:
        wordless = Wordless()
        for n in range(count):
            wordless.voice_started(n * every_ms)
            wordless.voice_ended(n * every_ms + length_ms, n * every_ms + length_ms + 500)
        return wordless.alarm(count * every_ms)

    assert not after(1_000, 900)
    assert not after(4, 2_000)
    assert after(5, 2_000)
    assert not after(13, 800, every_ms=1_600)
    assert after(14, 800, every_ms=1_600)


def test_where_nobody_transcribes_no_word_is_missed() -> None:
    dog = a_dog(live=False, transcribed=False)
    dog.observed(VadStarted(0, 200), 200)
    assert not looked(dog, 0.0, 60.0, heard_ms=600_000)


def test_silence_after_speech_does_not_count() -> None:
    dog = a_dog(live=False)
    dog.observed(VadStarted(0, 200), 200)
    dog.observed(VadEnded(3_000), 3_600)
    assert not looked(dog, 0.0, 60.0, heard_ms=600_000)
