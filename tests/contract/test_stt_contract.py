"""What every speech provider must do, over its own wire protocol and through its own LiveKit plugin.

A case is a session with a provider's stand-in; each test looks at what one provider made of one case.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from relay.speech.observations import (
    Ended,
    SourceDown,
    SourceUp,
    SpokenWord,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    TurnEnded,
    VadEnded,
    VadStarted,
)
from tests.support.audio.speech import speech, write_wav
from tests.support.providers.cartesia import CartesiaInk2
from tests.support.providers.stt_known import PROVIDERS, Known
from tests.support.providers.stt_plays import Case, Played, Stage, opening, play
from tests.support.providers.stt_script import Drop, Final, Garbage, Line, Onset, Partial, Script, utterance
from tests.support.providers.stt_server import SttServer

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))
FAILED = (("Ever", 1.90, 2.10), ("failed.", 2.20, 2.70))

CASES = dict[str, Case]()

Scene = Callable[[Known, Path], Awaitable[Played]]


def case(*, remote: bool = False, live: bool = False) -> Callable[[Scene], None]:
    def register(scene: Scene) -> None:
        CASES[scene.__name__] = Case(scene, remote, live)

    return register


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        stage = Stage(runner, tmp_path_factory.mktemp("stt"))
        for name, registered in CASES.items():
            stage.add(name, registered)
        yield stage


every = pytest.mark.parametrize("provider", PROVIDERS)


def outages(played: Played) -> list[tuple[str, str]]:
    """What failed and what recovered, in that order: each once."""
    told: list[SourceDown | SourceUp] = [*played.heard.of(SourceDown), *played.heard.of(SourceUp)]
    return [(one.detector, one.reason) for one in told]


async def fast(known: Known, wav: Path, script: Script, until: Callable[[Played], bool] | None = None) -> Played:
    """Faster than it plays; a provider on this machine hears the file to its end."""
    if known.stand_in is None:
        return await play(wav, known.config(None), None, None, realtime=False)
    async with known.server(script) as server:
        return await play(wav, known.config(server), server, until, realtime=False)


@case()
async def normal_speech(known: Known, folder: Path) -> Played:
    wav = opening(folder / f"{id(known)}.wav", silence_s=2)
    return await fast(known, wav, utterance(*TRIED), lambda played: bool(played.heard.of(TurnEnded)))


@every
def test_normal_speech(stage: Stage, provider: str) -> None:
    known, played = PROVIDERS[provider], stage("normal_speech", provider)

    final = played.finals[0]
    told = [type(o) for o in played.heard if isinstance(o, SttStarted | SttEnded | SttTranscript)]
    assert not played.faults
    assert played.paired
    assert told[0] is SttStarted
    assert told.index(SttEnded) > told.index(SttTranscript)
    assert bool(played.interims) is known.interims
    assert final.reliable
    assert final.language is not None
    assert final.language.startswith("en")
    assert (final.confidence is not None) is known.confidence
    assert next(said.text for said in played.heard.of(Transcribed) if said.final) == final.text
    assert played.heard.of(TurnEnded)[0].text.startswith(final.text)
    if known.stand_in is None:
        assert "tried" in final.text.lower()
        assert final.start_ms is not None
        return
    assert final.text == "Ever tried."
    assert (final.start_ms, final.end_ms) == ((400, 1150) if known.times else (None, None))
    confidence = 0.98 if known.confidence else None
    words = (SpokenWord("Ever", 400, 620, confidence), SpokenWord("tried.", 700, 1150, confidence))
    assert final.words == (words if known.words else ())


@case()
async def two_utterances(known: Known, folder: Path) -> Played:
    script = [*utterance(*TRIED), *utterance(*FAILED)]
    return await fast(known, speech("beckett.wav"), script, lambda played: len(played.heard.of(SttEnded)) == 2)


@every
def test_two_utterances(stage: Stage, provider: str) -> None:
    known, played = PROVIDERS[provider], stage("two_utterances", provider)

    first, second = played.finals[:2]
    assert played.paired
    assert played.edges[:4] == [SttStarted, SttEnded] * 2
    assert [said.text for said in played.heard.of(Transcribed) if said.final][:2] == [first.text, second.text]
    if known.times:
        assert first.end_ms is not None
        assert second.start_ms is not None
        assert first.end_ms <= second.start_ms
    if known.stand_in is not None:
        assert (first.text, second.text) == ("Ever tried.", "Ever failed.")
        assert (second.start_ms, second.end_ms) == ((1900, 2700) if known.times else (None, None))


@case()
async def empty_result(known: Known, folder: Path) -> Played:
    silence = write_wav(folder / f"{id(known)}-silence.wav", bytes(2 * 16_000 * 3))
    return await fast(known, silence, [(0.6, Onset(0.4)), (1.2, Final(()))])


@every
def test_an_empty_result_is_no_text(stage: Stage, provider: str) -> None:
    known, played = PROVIDERS[provider], stage("empty_result", provider)

    assert played.edges == ([SttStarted, SttEnded] if known.stand_in is not None else [])
    assert not played.finals
    assert not [said for said in played.heard.of(Transcribed) if said.text]
    assert not played.heard.of(TurnEnded)
    assert not played.faults
    assert isinstance(played.heard[-1], Ended)


@case(remote=True, live=True)
async def reconnect(known: Known, folder: Path) -> Played:
    dropped: Script = [(0.6, Onset(0.4)), (0.8, Partial(TRIED[:1])), (1.0, Drop())]
    async with known.server(dropped, utterance(("Ever", 0.40, 0.62), ("failed.", 0.70, 0.95))) as server:
        return await play(
            speech("beckett.wav"),
            known.config(server),
            server,
            lambda played: any("failed" in said.text for said in played.finals) and played.paired,
        )


@every
def test_a_drop_in_mid_speech_is_reconnected_and_the_speech_is_said_again(stage: Stage, provider: str) -> None:
    known, played = PROVIDERS[provider], stage("reconnect", provider)

    *before, after = played.finals
    assert played.connections == 2
    assert not played.faults
    assert played.paired
    assert [said.reliable for said in played.interims[:1]] == [True] * known.interims
    assert (after.text, after.reliable) == ("Ever failed.", True)
    assert after.start_ms == (400 if known.times else None)
    assert not played.heard.of(SourceDown), "it passed with the first new attempt"
    # Cartesia's plugin ends the turn that it is in with what it has.
    assert [said.text for said in before] == (["Ever"] if known.stand_in is CartesiaInk2 else [])


@case(remote=True, live=True)
async def wrong_key(known: Known, folder: Path) -> Played:
    async with known.server(utterance(*TRIED)) as server:
        config = known.config(server)
        right, server.key = server.key, "the-right-key-was-taken-back-a-while-ago"

        async def until_told(played: Played) -> None:
            await played.heard.until(lambda heard: bool(played.faults and heard.of(VadEnded)))
            server.key = right

        return await play(speech("beckett.wav"), config, server, lambda played: bool(played.finals), then=until_told)


@every
def test_a_wrong_key_is_told_once_and_heals(stage: Stage, provider: str) -> None:
    known, played = PROVIDERS[provider], stage("wrong_key", provider)

    assert len(played.faults) == 1
    assert f"failed: {known.wrong_key}; it is tried again until it answers" in played.faults[0]
    assert played.connections <= 10, "it is not tried again all the time"  # twice a second would be 20
    voice, first = played.heard.of(VadEnded)[0], played.finals[0]
    assert played.heard.index(voice) < played.heard.index(first)
    assert (first.text, first.reliable) == ("Ever tried.", True)
    if known.times:  # counted from the audio that was kept for it
        assert first.start_ms == 400
    assert outages(played) == [("stt", "refused"), ("stt", "refused")]
    assert played.heard.of(SourceUp)[0].missed_ms == 0
    assert stage.lines
    assert not [line for line in stage.lines if SttServer.key in line]


@case(remote=True, live=True)
async def rate_limit(known: Known, folder: Path) -> Played:
    async with known.server(utterance(*TRIED)) as server:
        server.busy = 4
        return await play(speech("two_cities.wav"), known.config(server), server, lambda played: bool(played.finals))


@every
def test_a_rate_limit_is_told_once_and_waited_for(stage: Stage, provider: str) -> None:
    known, played = PROVIDERS[provider], stage("rate_limit", provider)

    assert len(played.faults) == 1
    assert f"failed: {known.busy};" in played.faults[0]
    assert outages(played) == [("stt", "refused"), ("stt", "refused")]
    assert 5 <= played.connections <= 10, "four were refused, and it is not tried again all the time"
    assert played.heard.of(VadStarted)
    assert (played.finals[0].text, played.finals[0].reliable) == ("Ever tried.", True)


@case(remote=True, live=True)
async def malformed_frame(known: Known, folder: Path) -> Played:
    async with known.server([(0.2, Garbage()), *utterance(*TRIED)], utterance(*TRIED)) as server:
        return await play(speech("beckett.wav"), known.config(server), server, lambda played: bool(played.finals))


@every
def test_a_malformed_frame_costs_no_more_than_a_moment(stage: Stage, provider: str) -> None:
    known, played = PROVIDERS[provider], stage("malformed_frame", provider)

    assert (played.finals[0].text, played.finals[0].reliable) == ("Ever tried.", True)
    assert played.connections == (1 if known.shrugs else 2)
    assert not played.faults


@case()
async def late_final(known: Known, folder: Path) -> Played:
    script: Script = [(0.6, Onset(0.4)), (1.0, Partial(TRIED[:1])), Line(3.0, Final(TRIED), wait_s=0.8)]
    return await fast(known, opening(folder / f"{id(known)}-late.wav"), script)


@every
def test_a_final_that_comes_after_the_track_is_gone_is_waited_for(stage: Stage, provider: str) -> None:
    played = stage("late_final", provider)

    assert "tried" in played.finals[0].text.lower()
    assert [said.text for said in played.heard.of(Transcribed) if said.final] == [played.finals[0].text]
    assert played.paired
    assert isinstance(played.heard[-1], Ended)


@case(remote=True)
async def too_late_final(known: Known, folder: Path) -> Played:
    script: Script = [(0.6, Onset(0.4)), (1.0, Partial(TRIED[:1])), Line(3.0, Final(TRIED), wait_s=20.0)]
    return await fast(known, opening(folder / f"{id(known)}-too-late.wav"), script)


@every
def test_a_final_that_never_comes_is_not_waited_for_forever(stage: Stage, provider: str) -> None:
    played = stage("too_late_final", provider)

    assert 2.0 < played.closing_s < 18.0, "it would come after 20 s"
    assert "Ever tried." not in [said.text for said in played.finals]
    assert played.paired
    assert isinstance(played.heard[-1], Ended)


@case(live=True)
async def alone(known: Known, folder: Path) -> Played:
    wav = speech("beckett.wav")
    if known.stand_in is None:
        return await play(wav, known.config(None), None, None, vad="none", realtime=False)
    async with known.server(utterance(*TRIED)) as server:
        return await play(
            wav, known.config(server), server, lambda played: bool(played.heard.of(TurnEnded)), vad="none"
        )


@every
def test_its_voice_is_enough_without_voice_activity_detection(stage: Stage, provider: str) -> None:
    played = stage("alone", provider)

    assert not played.heard.of(VadStarted)
    assert played.paired
    assert played.edges
    assert played.heard.of(TurnEnded)[0].text.startswith(played.finals[0].text)
