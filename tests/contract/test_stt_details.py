"""What one provider says in a way of its own."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiohttp import web

from relay.capture.audio.wav import WavSource
from relay.config.capture import Provider
from relay.speech.observations import SpokenWord, SttEnded, SttStarted, SttTranscript, Transcribed, TurnEnded
from relay.speech.sanitize import sane
from tests.support.audio.speech import Heard, listening, speech
from tests.support.providers import assemblyai, deepgram_flux
from tests.support.providers.assemblyai import AssemblyAI
from tests.support.providers.cartesia import CartesiaInk2
from tests.support.providers.deepgram_flux import DeepgramFlux
from tests.support.providers.inference import Inference, transcript
from tests.support.providers.stt_plays import opening
from tests.support.providers.stt_script import Final, Onset, Partial, Script
from tests.support.providers.stt_server import SttServer

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))


async def hear(
    provider: str,
    server: SttServer,
    script: Script,
    until: Callable[[Heard], bool] = lambda heard: bool(heard.of(SttEnded)),
    **options: object,
) -> Heard:
    server.scripts = [script]
    heard = Heard()
    with TemporaryDirectory() as folder:
        wav = opening(Path(folder) / "opening.wav", silence_s=2)
        async with server:
            stt = Provider(provider=provider, options=server.options | options)
            async with listening(WavSource(wav, realtime=False), heard, stt=stt) as session:
                await heard.until(until)
                await session.close("unpublished")
    return heard


def said(heard: Heard) -> list[tuple[str, bool]]:
    return [(one.text, one.final) for one in heard.of(SttTranscript)]


def plugin(name: str) -> None:
    pytest.importorskip(f"livekit.plugins.{name}")


async def test_assemblyai_says_where_speech_began() -> None:
    plugin("assemblyai")
    server = AssemblyAI()

    heard = await hear("assemblyai", server, [(0.9, Onset(0.35)), (1.5, Final(TRIED))])

    assert [started.at_ms for started in heard.of(SttStarted)] == [pytest.approx(350, abs=1)]
    assert server.connections[0].query["speech_model"] == "universal-3-6-pro"
    assert server.connections[0].query["sample_rate"] == "16000"


async def test_assemblyai_models_that_format_say_the_end_twice_and_are_heard_once() -> None:
    plugin("assemblyai")
    script: Script = [
        (0.8, assemblyai.turn(TRIED[:1], end_of_turn=False)),
        (1.5, assemblyai.turn(TRIED, end_of_turn=True, formatted=False)),
        (1.6, assemblyai.turn(TRIED, end_of_turn=True, formatted=True, speaker="A")),
    ]

    heard = await hear(
        "assemblyai",
        AssemblyAI(),
        script,
        lambda heard: bool(heard.of(TurnEnded)),
        model="universal-streaming-english",
        format_turns=True,
        speaker_labels=True,
    )

    assert [one for one in said(heard) if one[1]] == [("Ever tried.", True)]
    assert heard.of(SttTranscript)[-1].speaker_id == "A"
    # These models do not say when speech begins, so it is not said that it ends.
    assert not heard.of(SttStarted)
    assert not heard.of(SttEnded)


async def test_flux_ends_early_and_goes_on() -> None:
    words = (*TRIED, ("Failed.", 1.6, 2.0))
    script: Script = [
        (0.6, Onset(0.4)),
        (1.3, deepgram_flux.turn_info("EagerEndOfTurn", 0, TRIED)),
        (1.7, deepgram_flux.turn_info("TurnResumed", 0, words[:2])),
        (2.2, Final(words)),
    ]
    server = DeepgramFlux()

    heard = await hear("deepgram", server, script, eager_eot_threshold=0.4)

    assert said(heard) == [("Ever tried.", False), ("Ever tried.", False), ("Ever tried. Failed.", True)]
    assert len(heard.of(SttStarted)) == len(heard.of(SttEnded)) == 1
    assert server.connections[0].query["model"] == "flux-general-en"
    assert server.connections[0].query["eager_eot_threshold"] == "0.4"


async def test_flux_without_times_of_words_has_a_window_that_is_not_trusted() -> None:
    script: Script = [(0.6, Onset(0.4)), (1.4, deepgram_flux.turn_info("EndOfTurn", 0, TRIED, timed=False))]

    heard = await hear("deepgram", DeepgramFlux(), script)

    (final,) = heard.of(SttTranscript)
    assert final.words == (SpokenWord("Ever", None, None, 0.98), SpokenWord("tried.", None, None, 0.98))
    assert (final.start_ms, final.end_ms, final.reliable) == (0, 1350, False)


async def test_cartesia_ends_early_and_goes_on() -> None:
    plugin("cartesia")
    script: Script = [
        (0.6, Onset(0.4)),
        (0.9, Partial(TRIED[:1])),
        (1.2, {"type": "turn.eager_end", "transcript": "Ever tried.", "request_id": "req"}),
        (1.4, {"type": "turn.resume", "request_id": "req"}),
        (1.6, {"type": "error", "status_code": 400, "title": "of no consequence", "request_id": "req"}),
        (2.0, Final(TRIED)),
    ]
    server = CartesiaInk2()

    heard = await hear("cartesia", server, script)

    assert said(heard) == [("Ever", False), ("Ever tried.", False), ("Ever tried.", False), ("Ever tried.", True)]
    assert heard.of(SttTranscript)[-1].request_id == "req"
    assert server.connections[0].query == {"model": "ink-2", "sample_rate": "16000", "encoding": "pcm_s16le"}


async def test_livekit_inference_says_who_spoke_and_omits_what_its_provider_lacks() -> None:
    bare = {
        "type": "final_transcript",
        "transcript": "Ever failed.",
        "words": [{"word": "Ever"}, {"word": "failed."}],
        "extra": {"eou": 1},
    }
    script: Script = [
        (1.4, transcript("final_transcript", TRIED) | {"speaker_id": "S1"}),
        (2.4, bare),
    ]
    server = Inference()

    heard = await hear("livekit", server, script, lambda heard: len(heard.of(SttEnded)) == 2)

    first, second = heard.of(SttTranscript)
    assert first.speaker_id == "S1"
    assert second.words == (SpokenWord("Ever", None, None), SpokenWord("failed.", None, None))
    assert (second.start_ms, second.end_ms, second.reliable) == (None, None, False)
    assert server.connections[0].query == {"model": "deepgram/nova-3"}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"speaker_id": 5}, "Ever tried."),
        ({"confidence": "high"}, "Ever tried."),
        ({"words": [{"word": "Ever", "start": 0.4, "end": 0.6, "confidence": "high"}]}, "Ever tried."),
        ({"transcript": None}, None),
        ({"transcript": 5}, None),
    ],
)
async def test_a_value_of_another_type_does_not_end_the_transcription(wrong: dict[str, Any], text: str | None) -> None:
    last = transcript("final_transcript", (("Ever", 1.30, 1.40), ("failed.", 1.50, 1.60)))
    script: Script = [(0.8, transcript("final_transcript", TRIED) | wrong), (1.4, last)]

    heard = await hear("livekit", Inference(), script, lambda heard: len(heard.of(Transcribed)) == 1 + bool(text))

    texts = [text, "Ever failed."] if text else ["Ever failed."]
    assert [said.text for said in heard.of(Transcribed)] == texts, "the session goes on"
    finals = [sane(said) for said in heard.of(SttTranscript)]
    assert [isinstance(said, SttTranscript) and said.text for said in finals] == texts


class BehindAProxy(AssemblyAI):
    async def refuse(self, request: web.Request, status: int) -> web.StreamResponse:
        return web.Response(status=403)


async def test_assemblyai_that_is_refused_by_http_is_told_with_its_status() -> None:
    plugin("assemblyai")
    heard, faults = Heard(), list[str]()
    async with BehindAProxy() as server:
        stt = Provider(provider="assemblyai", options=server.options | {"api_key": "another"})
        async with listening(
            WavSource(speech("beckett.wav"), realtime=False), heard, stt=stt, on_fault=faults.append
        ) as session:
            await heard.until(lambda _: bool(faults))
            await session.close("unpublished")

    assert "failed: WSServerHandshakeError 403 (not allowed for this API key);" in faults[0]
