from relay.clock import instant
from relay.events.envelope import StreamEvent
from relay.events.omission import EventTooLarge, omitted
from relay.events.stream import StreamEnded
from relay.speech.observations import (
    Ended,
    Listening,
    Muted,
    Observation,
    StateChanged,
    SttTranscript,
    Transcribed,
    VadEnded,
    VadStarted,
)
from relay.speech.recovery import closing_events
from tests.unit.timelines.play import T0, rendered, tracker


def logged(*observed: tuple[int, Observation]) -> list[StreamEvent]:
    machine = tracker()
    log = machine.observe(Listening(T0, T0), T0)
    for at, observation in observed:
        log.extend(machine.observe(observation, T0 + at))
    return log


def closed(log: list[StreamEvent], at: int) -> list[str]:
    return [rendered(event, at) for event in closing_events(log, T0 + at, last_sequence=len(log))]


def test_a_stream_without_utterances_just_ends() -> None:
    assert closed(logged(), 9000) == [
        "2 stream.ended reason=worker_lost utterances=0 listened_until=2026-11-21 10:15:00+00:00"
    ]


def test_speech_in_progress_ends_without_a_time_that_nobody_measured() -> None:
    log = logged((900, VadStarted(700, 200)), (2000, SttTranscript("so I", True)), (2000, Transcribed("so I", True)))
    assert closed(log, 9000) == [
        "5 speech.ended u0.4 700.. vad reason=worker_lost flaps=0",
        "6 utterance.completed u0.5 700.. vad outcome=transcribed reason=worker_lost text='so I' finals=1 flaps=0",
        "7 stream.ended reason=worker_lost utterances=1 listened_until=2026-11-21 10:15:02+00:00",
    ]


def test_speech_that_had_ended_keeps_its_end_and_its_reason() -> None:
    log = logged((900, VadStarted(700, 200)), (2000, VadEnded(1500)), (3000, VadStarted(2800, 200)), (3500, Muted()))
    assert closed(log, 9000) == [
        "10 utterance.completed u0.5 700..1500 vad @1500 outcome=no_transcript reason=silence"
        " duration_ms=800 text='' finals=0 flaps=0",
        "11 utterance.completed u1.5 2800.. vad outcome=no_transcript reason=muted text='' finals=0 flaps=0",
        "12 stream.ended reason=worker_lost utterances=2 listened_until=2026-11-21 10:15:03.500000+00:00",
    ]


def test_merged_pauses_are_counted_and_text_without_speech_stays_unheard() -> None:
    machine = tracker("silero", "deepgram/nova-3", merge_gap_ms=1000)
    log = machine.observe(Listening(T0, T0), T0)
    for at, observation in (
        (900, VadStarted(700, 200)),
        (2000, VadEnded(1500)),
        (2200, VadStarted(2000, 200)),
        (3000, VadEnded(2500)),
    ):
        log.extend(machine.observe(observation, T0 + at))
    assert "flaps=1" in closed(log, 9000)[1]
    log += machine.observe(VadStarted(2800, 200), T0 + 3000)
    log += machine.observe(VadStarted(3000, 200), T0 + 3200)
    assert "flaps=2" in closed(log, 9000)[1], "a start in mid-speech ends no pause"
    silent = logged((900, Transcribed("ps", False)), (950, Transcribed("psst", True)))
    assert "outcome=no_vad" in closed(silent[:-1], 9000)[0]


def test_nothing_is_said_for_a_stream_that_ended_or_never_began() -> None:
    assert closing_events(logged((10, Ended("shutdown", 10))), T0, last_sequence=2) == []
    assert closing_events([], T0, last_sequence=0) == []


def test_what_is_written_for_the_dead_is_not_older_than_what_they_wrote() -> None:
    log = logged((900, VadStarted(700, 200)))
    assert {event.timing.emitted_at for event in closing_events(log, T0 - 5000, last_sequence=len(log))} == {
        log[-1].timing.emitted_at
    }


def test_a_stream_was_listened_to_until_the_last_sign_of_life() -> None:
    log = logged((900, VadStarted(700, 200)))
    for beat, until in ((None, 900), (T0 + 600, 900), (T0 + 2400, 2400)):
        *_, end = closing_events(log, T0 + 9000, last_sequence=len(log), last_beat=beat)
        assert isinstance(end, StreamEnded)
        assert end.data.listened_until == instant(T0 + until)


def test_the_stream_stays_who_it_was() -> None:
    log = logged((900, VadStarted(700, 200)))
    for event in closing_events(log, T0 + 9000, last_sequence=len(log)):
        assert (event.room, event.participant) == (log[0].room, log[0].participant)
        assert event.stream == log[0].stream.model_copy(update={"sequence": event.stream.sequence})
        assert (event.source.stt, event.source.vad) == (log[0].source.stt, log[0].source.vad)


def test_events_follow_the_last_of_the_log_even_when_the_last_is_not_in_the_history() -> None:
    log = logged((100, VadStarted(80, 20)))
    closing = closing_events(log, T0 + 9000, last_sequence=len(log) + 3)
    assert [event.stream.sequence for event in closing] == [len(log) + 4 + index for index in range(3)]


def test_a_completion_that_was_too_large_is_not_said_again() -> None:
    log = logged((900, VadStarted(700, 200)))
    *said, completed, _ = closing_events(log, T0 + 9000, last_sequence=len(log))
    replaced = omitted(completed, size=300_000, limit=262_144)
    assert isinstance(replaced, EventTooLarge)
    (end,) = closed([*log, *said, replaced], 9000)
    assert end.startswith("6 stream.ended reason=worker_lost utterances=1")


def test_a_text_that_came_after_the_completion_is_in_another_one() -> None:
    machine = tracker()
    log = machine.observe(Listening(T0, T0), T0)
    log += machine.observe(VadStarted(700, 200), T0 + 900)
    log += machine.observe(VadEnded(1500), T0 + 2000)
    log += machine.tick(T0 + 7000)
    log += machine.observe(SttTranscript("late", True, 800, 1400), T0 + 7500)
    final, _ = machine.observe(Transcribed("late", True), T0 + 7500)
    assert closed([*log, final], 9000) == [
        "8 utterance.completed u0.7 700..1500 vad @1500 outcome=transcribed revises=5 reason=silence"
        " duration_ms=800 text=late finals=1 flaps=0",
        "9 stream.ended reason=worker_lost utterances=1 listened_until=2026-11-21 10:15:07.500000+00:00",
    ]


def test_an_agents_session_elsewhere_heard_what_its_users_state_says() -> None:
    machine = tracker(None, None, None)
    log = machine.observe(Listening(T0, None), T0)
    for at, observation in ((900, StateChanged("listening", "speaking")), (2000, Transcribed("so I", True))):
        log.extend(machine.observe(observation, T0 + at))
    assert closed(log, 9000) == [
        "5 speech.ended u0.4 reason=worker_lost flaps=0",
        "6 utterance.completed u0.5 outcome=transcribed reason=worker_lost text='so I' finals=1 flaps=0",
        "7 stream.ended reason=worker_lost utterances=1 listened_until=2026-11-21 10:15:02+00:00",
    ]
