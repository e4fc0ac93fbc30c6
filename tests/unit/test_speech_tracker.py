"""What a timeline cannot show: clocks that are set, detectors at odds, memory."""

from collections.abc import Sequence

import pytest

from relay.clock import instant
from relay.events.envelope import StreamEvent
from relay.events.speech import SpeechEnded, UtteranceCompleted
from relay.events.stream import MicrophoneUnmuted, StreamEnded
from relay.recording.recorder import StreamRecorder
from relay.speech.context import KEPT_UTTERANCES
from relay.speech.observations import (
    Anchored,
    Ended,
    Listening,
    Muted,
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    StateChanged,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    Unmuted,
    VadEnded,
    VadStarted,
)
from tests.support.outbox.outbox_store import HandClock, until
from tests.unit.timelines.play import T0, HandTracker, tracker

HOUR_MS = 3_600_000


def listening(**settings: int) -> HandTracker:
    machine = tracker("silero", "deepgram/nova-3", None, **settings)
    machine.observe(Listening(T0, T0), T0)
    return machine


def types(events: list[StreamEvent]) -> list[str]:
    return [event.type for event in events]


@pytest.mark.parametrize("text_at", [1000, 2500], ids=["text before the end", "text after it"])
@pytest.mark.parametrize(("start_ms", "end_ms"), [(100, 900), (4200, 5000)], ids=["before the end", "behind it"])
def test_times_of_words_fit_the_measured_end_and_change_nothing_already_sent(
    text_at: int, start_ms: int, end_ms: int
) -> None:
    """A realtime model that tells no onset, with words whose times lie wherever they may."""
    machine = tracker(None, None, "openai/gpt-realtime")
    machine.observe(Listening(T0, T0), T0)
    words = SttTranscript("yes", True, start_ms=start_ms, end_ms=end_ms, detector="realtime")
    steps: list[tuple[int, Observation]] = [
        (700, RealtimeStarted(None)),
        (2000, RealtimeEnded(1400)),
        (text_at, words),
        (text_at, Transcribed("yes", True)),
    ]
    told = [event for at, step in sorted(steps, key=lambda step: step[0]) for event in machine.observe(step, T0 + at)]
    told += machine.tick(T0 + 60_000)
    (ended,) = (event for event in told if isinstance(event, SpeechEnded))
    (completed,) = (event for event in told if isinstance(event, UtteranceCompleted))
    known = text_at < 2000 and start_ms < 1400
    assert ended.data.duration_ms == (1300 if known else None)
    assert completed.data.duration_ms == ended.data.duration_ms
    assert completed.data.text == "yes"


def test_a_lost_streams_end_follows_the_wall_clock_even_after_it_was_set_back() -> None:
    machine = listening()
    machine.observe(VadStarted(700, 200), T0 + 900, T0 + 900)
    hour_ago = T0 + 2000 - HOUR_MS
    *_, lost = machine.observe(Ended("worker_lost", None), hour_ago, T0 + 2000)
    assert isinstance(lost, StreamEnded)
    assert lost.data.listened_until == instant(hour_ago)


@pytest.mark.parametrize("set_by", [-HOUR_MS, HOUR_MS])
def test_a_clock_that_is_set_moves_no_deadline(set_by: int) -> None:
    machine = listening()
    machine.observe(VadStarted(700, 200), T0 + 900)
    [_, ended] = machine.observe(VadEnded(1500), T0 + 2000, T0 + 2000)
    assert machine.deadline == T0 + 7000
    assert machine.tick(T0 + 6999 + set_by, T0 + 6999) == []
    assert machine.deadline == T0 + 7000 + set_by
    [completed] = machine.tick(T0 + 7000 + set_by, T0 + 7000)
    assert completed.type == "utterance.completed"
    assert completed.timing.emitted_at == max(ended.timing.emitted_at, instant(T0 + 7000 + set_by))


async def test_a_recorder_waits_by_elapsed_time() -> None:
    told, clock = list[str](), HandClock(T0)

    class Log:
        async def append(self, events: Sequence[StreamEvent]) -> None:
            told.extend(event.type for event in events)

    recorder = StreamRecorder(tracker(), Log(), clock)
    for observation in (Listening(T0, T0), VadStarted(700, 200), VadEnded(1500)):
        recorder.observe(observation)
    clock.set_by = HOUR_MS
    recorder.observe(Muted())
    await recorder.flush()
    clock.at += 5000
    recorder.observe(Unmuted())
    await until(lambda: "utterance.completed" in told)
    recorder.close()
    assert told[-3:] == ["microphone.muted", "microphone.unmuted", "utterance.completed"]


@pytest.mark.parametrize("set_by", [-HOUR_MS, HOUR_MS])
def test_a_mute_lasts_as_long_as_it_lasts_whatever_the_clock_says(set_by: int) -> None:
    machine = listening()
    machine.observe(Muted(), T0 + 1000, T0 + 1000)
    [unmuted] = machine.observe(Unmuted(), T0 + 4000 + set_by, T0 + 4000)
    assert isinstance(unmuted, MicrophoneUnmuted)
    assert unmuted.data.muted_ms == 3000


def test_a_tick_before_its_time_does_nothing() -> None:
    machine = listening()
    machine.observe(VadStarted(700, 200), T0 + 900)
    assert machine.deadline is None
    machine.observe(VadEnded(1500), T0 + 2000)
    assert machine.tick(T0 + 6999) == []
    assert types(machine.tick(T0 + 7000)) == ["utterance.completed"]
    assert machine.deadline is None


def test_a_second_start_and_an_end_without_a_start_are_passed_on_and_change_nothing() -> None:
    machine = listening()
    assert types(machine.observe(VadEnded(100), T0)) == ["vad.speech_ended"]
    machine.observe(VadStarted(700, 200), T0 + 900)
    assert types(machine.observe(VadStarted(800, 200), T0 + 1000)) == ["vad.speech_started"]
    assert types(machine.observe(VadEnded(1500), T0 + 2000)) == ["vad.speech_ended", "speech.ended"]
    assert types(machine.observe(VadEnded(1600), T0 + 2100)) == ["vad.speech_ended"]


def test_an_end_before_its_onset_is_passed_on_but_is_no_measurement() -> None:
    machine = listening()
    machine.observe(VadStarted(700, 200), T0 + 900)
    raw, fused = machine.observe(VadEnded(600), T0 + 2000)
    assert (raw.timing.media_end_ms, fused.timing.media_end_ms) == (600, None)


def test_a_mute_while_muted_is_no_news() -> None:
    machine = listening()
    assert types(machine.observe(Muted(), T0)) == ["microphone.muted"]
    assert machine.observe(Muted(), T0 + 10) == []
    assert types(machine.observe(Unmuted(), T0 + 20)) == ["microphone.unmuted"]
    assert machine.observe(Unmuted(), T0 + 30) == []


def test_audio_anchored_before_listening_counts() -> None:
    machine = tracker()
    machine.observe(Anchored(0, T0 + 40), T0)
    machine.observe(Listening(T0, None), T0)
    started, _ = machine.observe(VadStarted(700, 200), T0 + 900)
    assert started.timing.occurred_at is not None
    assert started.timing.occurred_at.microsecond == 740_000


def test_a_due_utterance_waits_a_bounded_time_for_a_session_that_reports_nothing() -> None:
    machine = listening(transcript_timeout_ms=1000, join_timeout_ms=400)
    machine.observe(VadStarted(700, 200), T0 + 900)
    machine.observe(VadEnded(1500), T0 + 2000)
    seen: list[str] = []
    for at in range(2000, 4000, 100):
        machine.observe(SttTranscript("more", True), T0 + at)
        while machine.deadline is not None and machine.deadline <= T0 + at:
            seen.extend(f"{at} {event.type}" for event in machine.tick(machine.deadline) if event.utterance)
    assert "3400 utterance.completed" in seen


def test_a_final_after_the_mute_was_completed_never_opens_an_utterance_inside_it() -> None:
    machine = listening(transcript_timeout_ms=1000)
    machine.observe(VadStarted(32, 200), T0 + 250)
    machine.observe(SttTranscript("Ever tried.", True, 100, 1000), T0 + 1300)
    machine.observe(Transcribed("Ever tried.", True), T0 + 1300)
    machine.observe(Muted(), T0 + 3100)
    [completed] = machine.tick(T0 + 4100)
    assert isinstance(completed, UtteranceCompleted)
    machine.observe(SttTranscript("Ever failed.", True, 1088, 3136), T0 + 4500)
    final, again = machine.observe(Transcribed("Ever failed.", True), T0 + 4500)
    assert types([final, again]) == ["transcript.final", "utterance.completed"]
    assert isinstance(again, UtteranceCompleted)
    assert again.utterance.id == completed.utterance.id
    assert again.data.text == "Ever tried. Ever failed."
    assert (completed.data.revises, again.data.revises) == (None, completed.utterance.revision)
    whisper = machine.observe(SttTranscript("psst", True, 9000, 9500), T0 + 9800)
    whisper += machine.observe(Transcribed("psst", True), T0 + 9800)
    assert types(whisper)[0] == "speech.started"


def test_an_utterance_with_a_final_waits_only_for_the_final_of_a_later_interim() -> None:
    machine = listening()
    machine.observe(VadStarted(100, 200), T0 + 300)
    machine.observe(Transcribed("Ever tried.", True), T0 + 1300)
    machine.observe(Transcribed("Ever", False), T0 + 1900)
    machine.observe(VadEnded(2000), T0 + 2500)
    assert machine.deadline == T0 + 7500
    machine.observe(SttTranscript("", True), T0 + 2600)
    assert machine.deadline == T0 + 3100, "the provider has no text for it after all"


def test_an_interim_holds_up_only_the_utterances_that_it_lies_in() -> None:
    machine = listening()
    machine.observe(VadStarted(100, 200), T0 + 300)
    machine.observe(VadEnded(1000), T0 + 1500)
    machine.observe(SttTranscript("Ever tried.", True, 200, 950), T0 + 1600)
    machine.observe(Transcribed("Ever tried.", True), T0 + 1600)
    machine.observe(VadStarted(1700, 200), T0 + 1900)
    machine.observe(SttTranscript("Ever", False, 1800, 1900), T0 + 1950)
    machine.observe(Transcribed("Ever", False), T0 + 1950)
    assert machine.deadline == T0 + 2200, "the first has its final, and waits for no more"


def test_the_same_word_again_belongs_to_the_speech_in_progress() -> None:
    machine = listening()
    machine.observe(VadStarted(100, 200), T0 + 300)
    machine.observe(Transcribed("yes", False), T0 + 900)
    machine.observe(VadEnded(1000), T0 + 1500)
    machine.observe(Transcribed("yes", True), T0 + 1600)
    assert types(machine.tick(T0 + 2200)) == ["utterance.completed"]
    machine.observe(VadStarted(4000, 200), T0 + 4200)
    [final] = machine.observe(Transcribed("yes", True), T0 + 5000)
    assert final.utterance is not None
    assert final.utterance.index == 1


def test_a_closing_session_repeats_the_interim_that_no_final_answered() -> None:
    machine = listening()
    machine.observe(VadStarted(100, 200), T0 + 300)
    machine.observe(VadEnded(1000), T0 + 1500)
    assert types(machine.tick(T0 + 6500)) == ["utterance.completed"]
    machine.observe(VadStarted(7000, 200), T0 + 7200)
    machine.observe(SttTranscript("Ever", False, 200, 900), T0 + 7300)
    machine.observe(Transcribed("Ever", False), T0 + 7300)
    machine.observe(VadEnded(8000), T0 + 8500)
    machine.observe(SttTranscript("Failed.", True, 7100, 7900), T0 + 8600)
    machine.observe(Transcribed("Failed.", True), T0 + 8600)
    repeated, *_ = machine.observe(Transcribed("Ever", True), T0 + 8700)
    assert repeated.utterance is not None
    assert repeated.utterance.index == 0


@pytest.mark.parametrize(("end_ms", "onset_ms"), [(None, 2300), (1500, None)], ids=["no end", "no onset"])
def test_a_pause_that_was_not_measured_is_resumed_within_the_merge_gap(
    end_ms: int | None, onset_ms: int | None
) -> None:
    machine = tracker(None, "deepgram/nova-3", None, merge_gap_ms=1000)
    machine.observe(Listening(T0, T0), T0)
    machine.observe(SttStarted(700), T0 + 900)
    machine.observe(SttEnded(end_ms), T0 + 2000)
    assert types(machine.observe(SttStarted(onset_ms), T0 + 2500)) == ["stt.speech_started"]
    assert machine.tick(T0 + 60_000) == []


def test_text_of_an_utterance_that_is_long_forgotten_has_its_own() -> None:
    machine = listening(final_grace_ms=0)
    for n in range(KEPT_UTTERANCES + 1):
        machine.observe(VadStarted(n * 1000, 200), T0 + n * 1000)
        machine.observe(VadEnded(n * 1000 + 500), T0 + n * 1000 + 600)
        machine.observe(Transcribed("yes", True), T0 + n * 1000 + 700)
        machine.tick(T0 + n * 1000 + 700)
    opened = machine._life.opened
    for n, known in ((1, True), (0, False)):
        machine.observe(SttTranscript("late", True, n * 1000 + 100, n * 1000 + 300), T0 + 100_000)
        machine.observe(Transcribed("late", True), T0 + 100_000)
        assert (machine._life.opened == opened) is known
        opened = machine._life.opened


def test_completed_utterances_are_forgotten() -> None:
    machine = listening(final_grace_ms=0)
    for n in range(500):
        at = T0 + n * 10_000
        machine.observe(VadStarted(n * 10_000, 200), at)
        machine.observe(VadEnded(n * 10_000 + 500), at + 1000)
        machine.observe(Transcribed("yes", True), at + 1500)
        machine.tick(at + 1500)
    assert len(machine._life._live) == 0
    assert len(machine._life._done) == KEPT_UTTERANCES
    assert machine._life.opened == 500


def test_an_agents_session_elsewhere_opens_and_ends_utterances_by_the_users_state() -> None:
    machine = tracker(None, None, None)
    machine.observe(Listening(T0, None), T0)
    raw, fused = machine.observe(StateChanged("listening", "speaking"), T0 + 900)
    assert types([raw, fused]) == ["user.state_changed", "speech.started"]
    assert raw.utterance is not None
    assert fused.utterance is not None
    assert raw.utterance.id == fused.utterance.id
    assert types(machine.observe(StateChanged("speaking", "listening"), T0 + 1500)) == [
        "user.state_changed",
        "speech.ended",
    ]
    assert types(machine.observe(Transcribed("so", final=True), T0 + 1600)) == ["transcript.final"]
    [completed] = machine.tick(T0 + 2200)
    assert isinstance(completed, UtteranceCompleted)
    assert (completed.data.outcome, completed.data.text, completed.data.duration_ms) == ("transcribed", "so", None)
    assert types(machine.observe(StateChanged("listening", "away"), T0 + 9000)) == ["user.state_changed"]


def test_late_text_of_another_agents_session_completes_the_utterance_of_its_guess() -> None:
    machine = tracker(None, None, None)
    machine.observe(Listening(T0, None), T0)
    machine.observe(StateChanged("listening", "speaking"), T0 + 900)
    machine.observe(Transcribed("so", final=False), T0 + 1200)
    machine.observe(StateChanged("speaking", "listening"), T0 + 1500)
    assert types(machine.tick(T0 + 6500)) == ["utterance.completed"]
    late = machine.observe(Transcribed("so it goes", final=True), T0 + 7000)
    assert types(late) == ["transcript.final", "utterance.completed"]
    assert {event.utterance and event.utterance.index for event in late} == {0}
    assert types(machine.observe(Transcribed("and so on", final=True), T0 + 8000))[0] == "speech.started"


def test_nothing_that_an_agents_session_elsewhere_says_has_an_acoustic_time() -> None:
    machine = tracker(None, None, None)
    events = machine.observe(Listening(T0, None), T0)
    events += machine.observe(StateChanged("listening", "speaking"), T0 + 900)
    events += machine.observe(Transcribed("so", final=True), T0 + 1600)
    events += machine.observe(Ended("disconnected", None), T0 + 1700)
    assert types(events)[-1] == "stream.ended"
    for event in events:
        timing = event.timing
        assert (timing.occurred_at, timing.media_start_ms, timing.media_end_ms) == (None, None, None)
        assert not timing.reliable


def test_a_state_known_in_mid_speech_ends_nothing() -> None:
    machine = tracker(None, None, None)
    machine.observe(Listening(T0, None), T0)
    assert types(machine.observe(StateChanged("speaking", "listening"), T0 + 900)) == ["user.state_changed"]
