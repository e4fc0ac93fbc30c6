"""Whatever is observed, in whatever order, at whatever times: what the tracker says stays in order."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.events.catalog import parse
from relay.events.detectors import RealtimeEnd, RealtimeSpeechEnded, TurnCompleted, VadEnd, VadSpeechEnded
from relay.events.envelope import StreamEvent
from relay.events.speech import (
    SpeechEnded,
    SpeechStarted,
    TranscriptFinal,
    TranscriptInterim,
    UtteranceCompleted,
)
from relay.events.stream import SourceFailed, SourceFailure, SourceName, SourceRecovered, StreamEnd, StreamEnded
from relay.ids import event_id
from relay.speech.context import KEPT_UTTERANCES
from relay.speech.observations import (
    Anchored,
    DetectorLost,
    Ended,
    Leaving,
    Listening,
    Muted,
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    SourceDown,
    SourceUp,
    SpokenWord,
    StateChanged,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    TurnEnded,
    Unmuted,
    VadEnded,
    VadStarted,
)
from relay.speech.recovery import closing_events
from tests.unit.timelines.play import T0, HandTracker, context, tracker

TEXTS = {"yes": "yes", " no\n": "no", "one  two": "one  two", "": "", " ": "", "\ud800": "\ufffd", "ça": "ça"}
"""What detectors say → what goes out."""

DIVIDED = [
    SttTranscript(
        " ".join(["yes", "no", "one  two"][: len(ends)]),
        True,
        words=tuple(
            SpokenWord(said, end - 300, end)
            for said, end in zip(["yes", "no", "one", "two"], [*ends, 5000], strict=False)
        ),
    )
    for ends in ([500, 1000], [1200, 2000, 4400], [300, 4400, 700])
]
"""Finals with words that may lie in several utterances."""
TEXTS |= {final.text: final.text for final in DIVIDED}

media = st.one_of(st.integers(0, 20_000), st.sampled_from([-1, -(2**70), 2**70, 2**40 - 1]))
maybe_media = st.none() | media
sources = st.sampled_from(get_args(SourceName))
reasons = st.sampled_from(get_args(SourceFailure))
share = st.none() | st.floats(allow_nan=True, allow_infinity=True)
text = st.sampled_from(sorted(TEXTS))
word = st.builds(SpokenWord, text, maybe_media, maybe_media, share)

odd: st.SearchStrategy[Observation] = st.one_of(
    st.builds(Anchored, media, media.map(lambda ms: T0 + ms)),
    st.builds(VadStarted, media, media, share),
    st.builds(VadEnded, maybe_media, st.sampled_from(get_args(VadEnd)), maybe_media, maybe_media, share, share),
    st.builds(SttStarted, maybe_media),
    st.builds(SttEnded, maybe_media),
    st.builds(RealtimeStarted, maybe_media),
    st.builds(RealtimeEnded, maybe_media, st.sampled_from(get_args(RealtimeEnd))),
    st.builds(
        SttTranscript,
        text,
        st.booleans(),
        maybe_media,
        maybe_media,
        st.lists(word, max_size=2).map(tuple),
        share,
        st.sampled_from([None, "en", "de"]),
        reliable=st.booleans(),
    ),
    st.builds(Transcribed, text, st.booleans(), st.sampled_from([None, "en"])),
    st.builds(StateChanged, st.just("listening"), st.just("speaking")),
    st.builds(TurnEnded, text, share),
    st.builds(Muted),
    st.builds(Unmuted),
    st.builds(Leaving, st.none() | st.sampled_from(get_args(StreamEnd))),
    st.just(DetectorLost()),
    st.builds(SourceDown, sources, reasons, st.just(T0)),
    st.builds(SourceUp, sources, reasons, st.just(T0), st.integers(0, 9000), st.none() | st.integers(0, 9000)),
    st.builds(Listening, media, maybe_media, maybe_media, maybe_media),
)
usual: st.SearchStrategy[Observation] = st.one_of(
    st.sampled_from([0, 500, 1500, 4000]).map(lambda ms: VadStarted(ms, 200)),
    st.sampled_from([400, 1400, 3900, 6000]).map(VadEnded),
    st.sampled_from(["yes", "ça"]).map(lambda said: Transcribed(said, final=True)),
    st.builds(SttTranscript, st.sampled_from(["yes", "ça"]), st.just(True), st.sampled_from([None, 100, 1400, 4200])),
    st.builds(SttTranscript, st.just("yes"), st.just(False), st.sampled_from([None, 100, 1400, 4200])),
    st.sampled_from(DIVIDED),
    st.sampled_from([SttStarted(500), SttEnded(1400), Transcribed("ye", final=False), Muted(), Unmuted()]),
    st.sampled_from([RealtimeStarted(500), RealtimeEnded(1400), RealtimeEnded(None, "lost")]),
)
"""Without these, sheer chance seldom makes two utterances with two finals each."""
pause = st.one_of(st.integers(0, 700), st.sampled_from([0, 0, 0, 300, 700, 6000, 3_600_000]))
clock_set = st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, -3_600_000, 3_600_000])
step = st.tuples(pause, clock_set, st.one_of(usual, usual, usual, odd, st.none(), st.just("deadline")))
"""How much later; by how much the wall clock was set meanwhile; an observation, a tick, or a tick just when it is
due."""
detectors = st.one_of(
    st.tuples(st.sampled_from([None, "silero"]), st.sampled_from([None, "deepgram/nova-3"]), st.none()),
    st.just((None, None, "openai/gpt-realtime")),
)


@dataclass
class Run:
    """A tracker that was driven, and all that went in and came out. Provider's finals are marked by a speaker id."""

    tracker: HandTracker
    now: int = T0
    set_by: int = 0
    """How far the wall clock was set away from the elapsed time."""
    log: list[StreamEvent] = field(default_factory=list)
    marked: list[SttTranscript] = field(default_factory=list)
    provided: dict[str, str] = field(default_factory=dict)
    repeated: Counter[str] = field(default_factory=Counter)
    """Finals of the provider that only say again what one before them said: the same words at the same times."""
    guessed: list[SttTranscript] = field(default_factory=list)
    """Interims of the provider. The session may make a final of one, whose own final then says nothing new."""
    reported: Counter[str] = field(default_factory=Counter)

    def observe(self, item: Observation) -> None:
        if isinstance(item, SttTranscript) and item.final and TEXTS[item.text]:
            item = replace(item, speaker_id=f"S{len(self.marked)}")
            again = item.reliable and times(item) and words_and_times(item) in map(words_and_times, self.marked)
            self.marked.append(item)
            if again or words_and_times(item) in map(words_and_times, self.guessed):
                self.repeated[TEXTS[item.text]] += 1
            if not again:
                self.provided[item.speaker_id or ""] = TEXTS[item.text]
        elif isinstance(item, SttTranscript) and item.reliable and times(item):
            if words_and_times(item) in map(words_and_times, [*self.marked, *self.guessed]):
                self.repeated[TEXTS[item.text]] += 1
            self.guessed.append(item)
        if isinstance(item, Transcribed) and item.final and TEXTS[item.text]:
            self.reported[TEXTS[item.text]] += 1
        self.log.extend(self.tracker.observe(item, self.now, self.now - self.set_by))

    def tick(self) -> None:
        self.log.extend(self.tracker.tick(self.now, self.now - self.set_by))
        assert self.tracker.deadline is None or self.tracker.deadline > self.now

    def play(self, steps: list[tuple[int, int, Observation | str | None]]) -> None:
        self.observe(Listening(T0, T0))
        for later, set_by, item in steps:
            self.now += later + set_by
            self.set_by += set_by
            if isinstance(item, str):
                self.now = self.tracker.deadline or self.now
                self.tick()
            elif item is None:
                self.tick()
            else:
                self.observe(item)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    vad, stt, realtime = draw(detectors)
    waits = {
        "merge_gap_ms": draw(st.sampled_from([0, 0, 500, 3000])),
        "final_grace_ms": draw(st.sampled_from([0, 600])),
        "transcript_timeout_ms": draw(st.sampled_from([0, 5000])),
    }
    run = Run(tracker(vad, stt, realtime, **waits))
    run.play(draw(st.lists(step, min_size=draw(st.sampled_from([0, 15, 30])), max_size=50)))
    return run


@settings(max_examples=200, deadline=None)
@given(runs(), st.sampled_from(get_args(StreamEnd)))
def test_every_run_that_ends_is_whole(run: Run, reason: StreamEnd) -> None:
    run.observe(Ended(reason, 1000))
    assert run.tracker.deadline is None
    check(run.log)
    finals = [event for event in run.log if isinstance(event, TranscriptFinal)]
    marked = dict[str, list[TranscriptFinal]]()
    for final in finals:
        if final.data.speaker_id:
            marked.setdefault(final.data.speaker_id, []).append(final)
    # One that was divided is said in parts, each in an utterance of its own.
    anticipated = {
        item.speaker_id
        for item in run.marked
        if words_and_times(item) in map(words_and_times, run.guessed)
        and any(final.data.speaker_id is None and final.timing.timed_by for final in finals)
    }
    said = {mark: "".join(whole(parts)) for mark, parts in marked.items()}
    expected = {mark: "".join(text.split()) for mark, text in run.provided.items()}
    assert {**expected, **said} == expected
    assert expected.keys() - said.keys() <= anticipated
    for parts in marked.values():
        assert all(one.utterance.id != other.utterance.id for one, other in pairwise(parts))
    by_session = Counter(final.data.text for final in finals if final.source.detector == "session")
    for text in {*run.reported, *by_session} if all(len(parts) == 1 for parts in marked.values()) else ():
        assert run.reported[text] - run.repeated[text] <= by_session[text] <= run.reported[text]
    length = len(run.log)
    run.now += 10_000_000
    run.tick()
    run.play([(0, 0, VadStarted(0, 0)), (0, 0, Transcribed("yes", True)), (0, 0, Ended("shutdown", 1))])
    assert len(run.log) == length


@settings(max_examples=120, deadline=None)
@given(runs(), st.data())
def test_recovery_closes_whatever_was_logged(run: Run, data: st.DataObject) -> None:
    log = run.log[: data.draw(st.integers(0, len(run.log)))]
    closing = closing_events(log, run.now, last_sequence=len(log))
    if not log:
        assert closing == []
        return
    check([*log, *closing])
    assert closing_events([*log, *closing], run.now, last_sequence=len(log) + len(closing)) == []


@settings(max_examples=120, deadline=None)
@given(runs())
def test_recovery_says_what_the_writer_would_have(run: Run) -> None:
    recovered = closing_events(run.log, run.now, last_sequence=len(run.log))
    closed = run.tracker.observe(Ended("worker_lost", None), run.now, run.now - run.set_by)
    if any(isinstance(event, TranscriptFinal) for event in closed):
        return  # A final that waited for the session died with the writer.
    assert _completions(recovered) == _completions(closed)
    ended = _tail(closed).data
    assert ended.listened_until is not None
    assert _tail(recovered).data == ended.model_copy(update={"listened_until": run.log[-1].timing.emitted_at})


@settings(max_examples=80, deadline=None)
@given(runs())
def test_nothing_waits_for_ever(run: Run) -> None:
    for _ in range(200):
        if (deadline := run.tracker.deadline) is None:
            break
        run.now = max(deadline, run.now)
        run.tick()
    assert run.tracker.deadline is None
    started, ended, completed = (
        {event.utterance.id for event in run.log if isinstance(event, kind)}
        for kind in (SpeechStarted, SpeechEnded, UtteranceCompleted)
    )
    assert completed == ended
    assert len(started - ended) <= 1


@pytest.mark.parametrize("observed", [VadStarted(0, 0), Transcribed("yes", True), Ended("shutdown", 0)])
def test_nothing_is_said_before_listening(observed: Observation) -> None:
    machine = tracker()
    assert machine.observe(observed, T0) == []
    assert machine.deadline is None
    assert [event.stream.sequence for event in machine.observe(Listening(T0, T0), T0)] == [1]


def times(final: SttTranscript) -> list[int]:
    """The times that it has which mean anything."""
    given = [final.start_ms, final.end_ms, *(ms for word in final.words for ms in (word.start_ms, word.end_ms))]
    return [ms for ms in given if ms is not None and 0 <= ms < 2**40]


def words_and_times(final: SttTranscript) -> object:
    def known(ms: int | None) -> int | None:
        return ms if ms is not None and 0 <= ms < 2**40 else None

    words = [(known(word.start_ms), known(word.end_ms)) for word in final.words]
    return TEXTS[final.text], known(final.start_ms), known(final.end_ms), words, final.reliable


def whole(parts: list[TranscriptFinal]) -> list[str]:
    return [piece for part in parts for piece in part.data.text.split()]


def check(log: list[StreamEvent]) -> None:
    """The promises about a stream's log, once it has ended."""
    assert [event.stream.sequence for event in log] == list(range(1, len(log) + 1))
    assert [event.id for event in log] == [event_id(context().stream_id, n + 1) for n in range(len(log))]
    assert [isinstance(event, StreamEnded) for event in log] == [False] * (len(log) - 1) + [True]
    emitted = [event.timing.emitted_at for event in log]
    assert emitted == sorted(emitted)
    for event in log:
        assert parse(event.model_dump_json()) == event
        assert event.timestamp == (event.timing.occurred_at or event.timing.detected_at)
    revisions: dict[str, int] = {}
    current: str | None = None
    started: list[str] = []
    texts: dict[str, list[str]] = {}
    ended: dict[str, SpeechEnded] = {}
    spans: dict[str, SpeechEnded] = {}
    completed: set[str] = set()
    amended: set[str] = set()
    completions: dict[str, int] = {}
    down: set[SourceName] = set()
    for event in log:
        match event:
            case SourceFailed(data=failed):
                assert failed.detector not in down
                down.add(failed.detector)
            case SourceRecovered(data=recovered):
                down.remove(recovered.detector)
        if event.utterance is None:
            continue
        key = event.utterance.id
        assert event.utterance.revision == revisions.get(key, 0) + 1
        revisions[key] = event.utterance.revision
        late = (
            isinstance(
                event,
                VadSpeechEnded
                | RealtimeSpeechEnded
                | TurnCompleted
                | TranscriptInterim
                | TranscriptFinal
                | UtteranceCompleted,
            )
            or event.type == "stt.speech_ended"
        )
        assert key not in completed or late
        match event:
            case SpeechStarted():
                if event.data.opened_by in ("session", "stt") and event.timing.reliable:
                    assert not begins_inside(event, spans.values())
                assert current is None
                assert key not in started
                assert event.utterance.index == len(started)
                current = key
                started.append(key)
                texts[key] = []
            case SpeechEnded():
                assert key == current
                current, ended[key] = None, event
                spans[key] = event
                assert event.data.duration_ms is None or event.data.duration_ms >= 0
            case TranscriptFinal(data=data):
                assert data.text
                texts[key].append(data.text)
                if key in completed:
                    amended.add(key)
            case TranscriptInterim(data=data):
                assert key in texts
                assert data.text
            case UtteranceCompleted(data=data):
                assert data.text == " ".join(texts[key])
                assert data.finals == len(texts[key])
                assert (data.outcome == "no_transcript") == (not texts[key])
                assert data.revises == completions.get(key)
                assert (key in amended) == (key in completed), "it is completed again only for text that came late"
                amended.discard(key)
                completions[key] = event.utterance.revision
                end = ended[key].data
                assert (data.reason, data.duration_ms, data.flaps) == (end.reason, end.duration_ms, end.flaps)
                completed.add(key)
    assert set(started) == set(ended) == completed
    assert not amended
    last = _tail(log)
    assert last.data.utterances == len(started)


def begins_inside(started: SpeechStarted, others: Iterable[SpeechEnded]) -> bool:
    """Whether an utterance that a text opened begins inside one that voice activity heard, which is over."""
    onset = started.timing.media_start_ms
    return onset is not None and any(
        other.timing.media_start_ms is not None
        and other.timing.media_end_ms is not None
        and other.timing.timed_by == "vad"
        and other.timing.media_start_ms <= onset < other.timing.media_end_ms
        and started.utterance.index - other.utterance.index < KEPT_UTTERANCES
        for other in others
    )


def _completions(events: list[StreamEvent]) -> list[dict[str, object]]:
    """What completions say, without how and when the speech ended: the writer may have known that, recovery cannot."""
    return [
        event.data.model_dump(exclude={"reason", "duration_ms"})
        for event in events
        if isinstance(event, UtteranceCompleted)
    ]


def _tail(events: list[StreamEvent]) -> StreamEnded:
    last = events[-1]
    assert isinstance(last, StreamEnded)
    return last
