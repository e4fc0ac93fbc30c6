"""How much audio is kept for speech recognition that does not answer."""

from livekit import rtc

from relay.capture.audio.frames import stamp
from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.progress import ANSWER_WITHIN_S
from relay.capture.stt.replay_buffer import ReplayBuffer
from relay.speech.observations import VadEnded, VadStarted

FRAME = SAMPLE_RATE // 50


class Tape:
    def __init__(self, *, voiced: bool = True) -> None:
        self.owed = ReplayBuffer(voiced=voiced)

    def until(self, ms: int) -> "Tape":
        """Audio up to there."""
        while self.owed.ends < ms * 16:
            frame = rtc.AudioFrame.create(SAMPLE_RATE, 1, FRAME)
            stamp(frame, self.owed.ends)
            self.owed.heard(frame)
        return self

    @property
    def kept_ms(self) -> tuple[int, int]:
        return self.owed.begins // 16, self.owed.ends // 16


def test_silence_is_kept_for_a_moment_only() -> None:
    tape = Tape().until(60_000)
    assert tape.kept_ms == (59_000, 60_000)
    assert not tape.owed.any


def test_speech_is_kept_from_before_its_onset() -> None:
    tape = Tape().until(5_300)
    tape.owed.voice(VadStarted(5_000, 300))
    tape.until(9_000)
    assert tape.kept_ms == (4_300, 9_000), "what was gone when it was noticed does not come back"
    assert tape.owed.any


def test_what_is_answered_is_never_said_again() -> None:
    tape = Tape().until(5_300)
    tape.owed.voice(VadStarted(5_000, 300))
    tape.until(8_000).owed.answered(7_010)
    tape.until(9_000)
    assert tape.kept_ms == (7_000, 9_000), "the frame in which the final ends"


def test_a_final_without_times_answers_everything_so_far() -> None:
    tape = Tape(voiced=False).until(8_000)
    tape.owed.answered(None)
    assert tape.until(9_000).kept_ms == (8_000, 9_000)


def test_speech_that_was_answered_in_full_is_forgotten() -> None:
    for final_first in (True, False):
        tape = Tape().until(5_300)
        tape.owed.voice(VadStarted(5_000, 300))
        tape.until(8_000)
        if final_first:
            tape.owed.answered(7_300)
            tape.owed.voice(VadEnded(7_500))
        else:
            tape.owed.voice(VadEnded(7_500))
            tape.owed.answered(7_300)
        assert tape.until(8_020).kept_ms[0] == 7_300, "not a moment of what is answered"
        assert tape.until(9_600).kept_ms[0] == 8_600, "nothing but the moment that is always kept"
        assert not tape.owed.any


def test_speech_without_an_answer_is_forgotten_unless_nobody_listens() -> None:
    tapes = [Tape(), Tape()]
    for tape in tapes:
        tape.until(5_000).owed.voice(VadStarted(5_000, 0))
        tape.until(7_000).owed.voice(VadEnded(6_500))
    tapes[1].owed.unheard = True
    answer_due = 6_500 + round(ANSWER_WITHIN_S * 1000)
    assert [tape.until(answer_due).kept_ms[0] for tape in tapes] == [4_000, 4_000], "an answer may still come"
    assert [tape.until(20_000).kept_ms[0] for tape in tapes] == [19_000, 4_000]


def test_without_voice_activity_all_is_kept_until_it_is_answered() -> None:
    tape = Tape(voiced=False).until(20_000)
    assert tape.kept_ms == (0, 20_000)
    assert tape.owed.any


def test_it_is_never_more_than_thirty_seconds() -> None:
    tape = Tape().until(1_000)
    tape.owed.voice(VadStarted(500, 500))
    tape.owed.unheard = True
    assert tape.until(100_000).kept_ms == (70_000, 100_000)
    assert len(list(tape.owed)) == 30 * 50
