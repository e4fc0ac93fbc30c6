"""Somebody speaks, with pauses, mutes and a detector that fails; a provider answers late, twice, in other pieces or
with nothing. Each word is told once, in the utterance that it was spoken in."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.events.envelope import StreamEvent
from relay.events.speech import SpeechStarted, TranscriptFinal, UtteranceCompleted
from relay.speech.observations import (
    Ended,
    Listening,
    Muted,
    Observation,
    SourceDown,
    SourceUp,
    SpokenWord,
    SttTranscript,
    Transcribed,
    Unmuted,
    VadEnded,
    VadStarted,
)
from tests.property.test_tracker import check
from tests.unit.timelines.play import T0, tracker

Timed = list[tuple[int, Observation]]


@dataclass(frozen=True)
class Stretch:
    """Words without a pause that voice activity would notice, and how it ends. ``heard``: voice activity hears it."""

    words: tuple[SpokenWord, ...]
    ending: str
    heard: bool

    @property
    def start(self) -> int:
        return self.words[0].start_ms or 0

    @property
    def end(self) -> int:
        return self.words[-1].end_ms or 0


@dataclass(frozen=True)
class World:
    stretches: list[Stretch]
    finals: list[SttTranscript]
    timed: bool
    timeline: Timed
    timeout_ms: int

    def play(self) -> list[StreamEvent]:
        machine, log = tracker(transcript_timeout_ms=self.timeout_ms), list[StreamEvent]()
        for at, observation in self.timeline:
            while machine.deadline is not None and machine.deadline <= T0 + at:
                log += machine.tick(machine.deadline)
            log += machine.observe(observation, T0 + at)
        return log


@st.composite
def stretches(draw: st.DrawFn) -> list[Stretch]:
    said, at, number = list[Stretch](), 1000, 0
    for _ in range(draw(st.integers(1, 6))):
        words = list[SpokenWord]()
        for _ in range(draw(st.integers(1, 4))):
            length = draw(st.integers(100, 500))
            mark = draw(st.sampled_from(["", ",", ".", "?"]))
            words.append(SpokenWord(f"w{number}{mark}", at, at + length))
            at += length + draw(st.integers(0, 250))
            number += 1
        ending = draw(st.sampled_from(["silence"] * 4 + ["muted", "restarted"]))
        said.append(Stretch(tuple(words), ending, heard=draw(st.integers(0, 5)) > 0))
        at += draw(st.integers(1500, 4000))
    return said


def voice(stretch: Stretch) -> Timed:
    if not stretch.heard:
        return []
    began = (stretch.start + 100, VadStarted(max(0, stretch.start - 20), 120))
    end = stretch.end + 20
    match stretch.ending:
        case "muted":
            return [began, (end, Muted()), (end + 550, VadEnded(end)), (end + 600, Unmuted())]
        case "restarted":
            lost = SourceDown("vad", "lost", T0 + end)
            back = SourceUp("vad", "lost", T0 + end, 300, 300)
            return [began, (end, VadEnded(end, "closed")), (end, lost), (end + 300, back)]
        case _:
            return [began, (end + 550, VadEnded(end))]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    said = draw(stretches())
    timed = draw(st.integers(0, 4)) > 0
    every = [word for stretch in said for word in stretch.words]
    timeline, finals = [item for stretch in said for item in voice(stretch)], list[SttTranscript]()
    order = 0
    while every:
        size = draw(st.integers(1, 8))
        words, every = every[:size], every[size:]
        over = words[-1].end_ms or 0
        guessed = draw(st.integers(0, size))
        if guessed:
            guess = transcript(words[:guessed], final=False, timed=timed)
            timeline += reported(max(order, (words[:guessed][-1].end_ms or 0) + draw(st.integers(100, 600))), guess)
        late = draw(st.sampled_from([300, 600, 1500, 4000, 7000]) | st.integers(100, 9000))
        order = max(order, over + late)
        final = transcript(words, final=True, timed=timed)
        finals.append(final)
        session = draw(st.integers(0, 5)) > 0
        timeline += reported(order, final, session=session)
        if timed and draw(st.booleans()):
            timeline += reported(order + 100, replace(final, confidence=0.5), session=session)
        if draw(st.integers(0, 3)) == 0:
            timeline += reported(order + 150, SttTranscript("", draw(st.booleans())))
        order += 200
    ended = max(order, max(at for at, _ in timeline)) + draw(st.sampled_from([10, 3000, 20_000]))
    timeline = sorted([(0, Listening(T0, T0)), *timeline], key=lambda item: item[0])
    timeline.append((ended, Ended("unpublished", ended)))
    return World(said, finals, timed, timeline, draw(st.sampled_from([300, 5000])))


def transcript(words: list[SpokenWord], *, final: bool, timed: bool) -> SttTranscript:
    text = " ".join(word.text for word in words)
    return SttTranscript(text, final, words=tuple(words)) if timed else SttTranscript(text, final)


def reported(at: int, said: SttTranscript, *, session: bool = True) -> Timed:
    told: Timed = [(at, said)]
    return [*told, (at, Transcribed(said.text, said.final))] if session and said.text else told


def where(log: list[StreamEvent]) -> Iterator[tuple[str, str]]:
    """Each word that was said, with the utterance that it was said in."""
    for event in log:
        if isinstance(event, TranscriptFinal):
            yield from ((word, event.utterance.id) for word in event.data.text.split())


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_each_word_is_told_once_where_it_was_spoken(world: World) -> None:
    log = world.play()
    check(log)
    spoken = [word.text for stretch in world.stretches for word in stretch.words]
    assert Counter(word for word, _ in where(log)) == Counter(spoken)
    records = {event.utterance.id: event.data.text for event in log if isinstance(event, UtteranceCompleted)}
    assert Counter(" ".join(records.values()).split()) == Counter(spoken)
    if not world.timed:
        return
    voiced = {
        event.timing.media_start_ms: event.utterance.id
        for event in log
        if event.type == "vad.speech_started" and event.utterance is not None
    }
    placed = dict(where(log))
    for stretch in world.stretches:
        if stretch.heard:
            assert {placed[word.text] for word in stretch.words} == {voiced[max(0, stretch.start - 20)]}


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_a_transcript_opens_no_utterance_where_voice_activity_heard_its_words(world: World) -> None:
    if not world.timed:
        return
    heard = [(stretch.start, stretch.end) for stretch in world.stretches if stretch.heard]
    for event in world.play():
        if isinstance(event, SpeechStarted) and event.data.opened_by != "vad":
            onset = event.timing.media_start_ms
            assert onset is not None
            assert not any(start <= onset <= end for start, end in heard)
