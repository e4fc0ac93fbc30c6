"""Finals that come late, twice, for several utterances, or empty: what every provider's text becomes, over its own wire
protocol, through its own LiveKit plugin, a real session and the tracker."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from relay.capture.audio.wav import WavSource
from relay.clock import SystemClock
from relay.events.detectors import TurnCompleted
from relay.events.speech import SpeechStarted, TranscriptFinal, UtteranceCompleted
from relay.events.stream import StreamEnded
from relay.recording.recorder import StreamRecorder
from relay.speech.context import TrackerSettings
from relay.speech.tracker import Tracker
from tests.support.audio.speech import listening, speech
from tests.support.providers.realtime_plays import Told
from tests.support.providers.stt_known import PROVIDERS, Known
from tests.support.providers.stt_plays import opening
from tests.support.providers.stt_script import Final, Line, Onset, Partial, Script
from tests.unit.timelines.play import context

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))
FAILED = (("Ever", 1.90, 2.10), ("failed.", 2.20, 2.70))
BOTH = (*TRIED, *FAILED)

remote = pytest.mark.parametrize("name", [name for name, known in PROVIDERS.items() if known.stand_in is not None])


async def tell(
    known: Known, wav: Path, script: Script, until: Callable[[Told], bool] | None = None, **settings: int
) -> Told:
    """What a receiver is told of the file, which is heard faster than it plays."""
    if not known.installed:
        pytest.skip(f"speech-relay[{known.provider}] is not installed")
    told, ids = Told(), count()
    tracker = Tracker(context(), TrackerSettings(**settings), lambda: f"utt_{next(ids)}")
    recorder = StreamRecorder(tracker, told, SystemClock())
    async with known.server(script) as server:
        try:
            async with listening(
                WavSource(wav, realtime=False), recorder.observe, stt=known.config(server), on_fault=told.faults.append
            ) as session:
                if until is not None:
                    await told.until(until)
                else:
                    await session.ended()
                await session.close("unpublished")
        finally:
            recorder.close()
    assert isinstance(told.events[-1], StreamEnded)
    assert not told.faults
    return told


def records(told: Told) -> list[UtteranceCompleted]:
    """The newest completion of each utterance, in the order of the utterances; each but the first names the former."""
    newest = dict[str, UtteranceCompleted]()
    for completed in told.of(UtteranceCompleted):
        former = newest.get(completed.utterance.id)
        assert completed.data.revises == (None if former is None else former.utterance.revision)
        newest[completed.utterance.id] = completed
    assert newest.keys() == {started.utterance.id for started in told.of(SpeechStarted)}
    return sorted(newest.values(), key=lambda completed: completed.utterance.index)


def texts(told: Told) -> list[str]:
    finals = [final.data.text for final in told.of(TranscriptFinal)]
    assert sorted(" ".join(record.data.text for record in records(told)).split()) == sorted(" ".join(finals).split())
    return finals


def opened_by(told: Told) -> set[str]:
    return {started.data.opened_by for started in told.of(SpeechStarted)}


@remote
async def test_a_late_final_completes_its_utterance_again(name: str, tmp_path: Path) -> None:
    script: Script = [(0.6, Onset(0.4)), (1.0, Partial(TRIED[:1])), Line(3.5, Final(TRIED), wait_s=1.0)]

    told = await tell(
        PROVIDERS[name],
        opening(tmp_path / "opening.wav", silence_s=2),
        script,
        lambda told: bool(told.of(TranscriptFinal)),
        transcript_timeout_ms=200,
    )

    assert texts(told) == ["Ever tried."]
    assert opened_by(told) == {"vad"}
    outcomes = [completed.data.outcome for completed in told.of(UtteranceCompleted)]
    assert outcomes[-1] == "transcribed"
    assert "no_vad" not in outcomes
    assert "Ever tried." in [record.data.text for record in records(told)]


@remote
async def test_a_final_that_is_sent_twice_is_said_once(name: str, tmp_path: Path) -> None:
    known = PROVIDERS[name]
    final = Final(TRIED)
    script: Script = [(0.6, Onset(0.4)), Line(3.0, Partial(TRIED), 0.5), Line(3.0, final, 0.1), Line(3.0, final, 0.1)]

    told = await tell(known, opening(tmp_path / "opening.wav", silence_s=2), script)

    if known.times:  # else nothing tells it from the same words said again
        assert texts(told) == ["Ever tried."]
        assert [turn.data.text for turn in told.of(TurnCompleted)] == ["Ever tried."]
    assert opened_by(told) == {"vad"}


@remote
async def test_each_utterance_gets_its_words_of_one_final(name: str) -> None:
    known = PROVIDERS[name]
    script: Script = [(0.6, Onset(0.4)), (2.5, Partial(BOTH[:3])), (3.0, Final(BOTH))]

    told = await tell(known, speech("beckett.wav"), script)

    divided = ["Ever tried.", "Ever failed."] if known.words else ["Ever tried. Ever failed."]
    assert texts(told) == divided
    assert [record.data.text for record in records(told) if record.data.text] == divided
    assert opened_by(told) == {"vad"}


@remote
async def test_an_interim_and_an_empty_final_are_no_utterance_of_their_own(name: str, tmp_path: Path) -> None:
    script: Script = [(0.6, Onset(0.4)), (1.0, Partial(TRIED[:1])), (1.5, Final(()))]

    told = await tell(
        PROVIDERS[name],
        opening(tmp_path / "opening.wav", silence_s=2),
        script,
        lambda told: bool(told.of(UtteranceCompleted)),
        transcript_timeout_ms=500,
    )

    assert opened_by(told) == {"vad"}
    assert texts(told) in ([], ["Ever"])
    assert {final.utterance.index for final in told.of(TranscriptFinal)} <= {0}
