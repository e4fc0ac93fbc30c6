"""Deepgram's own words: ends of speech that come late, speakers, request ids."""

from relay.capture.audio.wav import WavSource
from relay.config.capture import Provider
from relay.speech.observations import (
    SpokenWord,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    TurnEnded,
)
from tests.support.audio.speech import Heard, listening, speech
from tests.support.providers.deepgram import Deepgram, results, speech_started, utterance_end

SCRIPT = [
    (0.4, speech_started(0.35)),
    (0.8, results([("Ever", 0.40, 0.62)], is_final=False)),
    (1.3, results([("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15)], is_final=True, speaker=0)),
    (1.6, utterance_end(1.15)),
    (2.0, speech_started(1.9)),
    (2.9, results([("Ever", 1.90, 2.10), ("failed.", 2.20, 2.70)], is_final=True, speech_final=True, speaker=1)),
]


async def test_what_it_says_is_mapped_to_media_times() -> None:
    heard = Heard()
    async with (
        Deepgram([SCRIPT]) as server,
        listening(
            WavSource(speech("beckett.wav"), realtime=False),
            heard,
            stt=Provider(provider="deepgram", options=server.options),
        ) as session,
    ):
        await heard.until(lambda heard: len(heard.of(SttEnded)) == 2)
        await session.close("unpublished")

    connection = server.connections[0]
    assert len(server.connections) == 1
    assert connection.query["model"] == "nova-3"
    assert connection.query["interim_results"] == "true"
    edges = [type(o) for o in heard if isinstance(o, SttStarted | SttEnded | SttTranscript)]
    assert edges == [SttStarted, SttTranscript, SttTranscript, SttEnded, SttStarted, SttTranscript, SttEnded]
    interim, first, second = heard.of(SttTranscript)
    assert (interim.text, interim.final, interim.speaker_id) == ("Ever", False, None)
    assert first == SttTranscript(
        text="Ever tried.",
        final=True,
        start_ms=400,
        end_ms=1150,
        words=(SpokenWord("Ever", 400, 620, 0.98), SpokenWord("tried.", 700, 1150, 0.98)),
        confidence=0.98,
        language="en-US",
        speaker_id="S0",
        request_id="req",
        reliable=True,
    )
    assert (second.start_ms, second.end_ms, second.speaker_id) == (1900, 2700, "S1")
    assert [said.text for said in heard.of(Transcribed) if said.final] == ["Ever tried.", "Ever failed."]
    assert " ".join(turn.text for turn in heard.of(TurnEnded)) == "Ever tried. Ever failed."
