"""A realtime model in place of voice activity detection and speech recognition, over OpenAI's own wire protocol and
through LiveKit's own plugin. Whatever happens, nobody asks the model to speak: ``heard_by`` looks at the wire."""

import asyncio
import wave
from pathlib import Path

import pytest

from relay.capture.audio.wav import WavSource
from relay.capture.detectors import REALTIME_TAIL_S
from relay.config.capture import Realtime
from relay.events.detectors import RealtimeSpeechEnded, RealtimeSpeechStarted, TurnCompleted, UserStateChanged
from relay.events.speech import SpeechEnded, SpeechStarted, TranscriptFinal, UtteranceCompleted
from relay.events.stream import SourceFailed, SourceRecovered, StreamEnded
from tests.support.audio.speech import Feed, speech, write_wav
from tests.support.providers.openai_realtime import OpenAIRealtime, error, failed_to_transcribe
from tests.support.providers.realtime_plays import Told, heard_by
from tests.support.providers.stt_script import Drop, Final, Garbage, Line, Onset, Partial, Script, utterance

pytest.importorskip("livekit.plugins.openai", reason="speech-relay[openai] is not installed")

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))
FAILED = (("Ever", 1.90, 2.10), ("failed.", 2.20, 2.70))


def beckett(*, pace: bool = False) -> WavSource:
    return WavSource(speech("beckett.wav"), realtime=pace)


def opening() -> bytes:
    """Three seconds of somebody speaking."""
    with wave.open(str(speech("beckett.wav"))) as file:
        return bytes(file.readframes(3 * file.getframerate()))


def assert_whole(told: Told) -> None:
    """Each start has its end before the next one, each utterance one completion (and revisions), the stream its end."""
    for family, names in (("realtime", ["speech_started", "speech_ended"]), ("speech", ["started", "ended"])):
        edges = told.types(family)
        assert edges == [f"{family}.{name}" for name in names] * (len(edges) // 2)
    completions = [completed for completed in told.of(UtteranceCompleted) if completed.data.revises is None]
    assert len(completions) == len(told.of(SpeechStarted))
    assert isinstance(told.events[-1], StreamEnded)


async def test_speech_is_told_with_the_models_times_and_text() -> None:
    async with OpenAIRealtime([utterance(*TRIED)]) as server, heard_by(server, beckett()) as (session, told):
        await told.until(lambda told: bool(told.of(UtteranceCompleted)))
        await session.close("unpublished")

    assert told.types("realtime", "speech", "transcript", "turn", "user", "utterance") == [
        "realtime.speech_started",
        "speech.started",
        "user.state_changed",
        "transcript.interim",
        "realtime.speech_ended",
        "speech.ended",
        "user.state_changed",
        "transcript.final",
        "turn.completed",
        "utterance.completed",
    ]
    started, ended = told.of(RealtimeSpeechStarted)[0], told.of(RealtimeSpeechEnded)[0]
    # Its own times are 100 ms and 1650 ms: they include the padding and the silence.
    assert (started.timing.media_start_ms, started.data.padding_ms) == (400, 300)
    assert (ended.timing.media_end_ms, ended.data.silence_ms, ended.data.reason) == (1150, 500, "silence")
    assert started.data.item_id == ended.data.item_id == "item_101"
    assert started.source.realtime == "openai/gpt-realtime"
    assert started.source.vad is started.source.stt is None
    final, completed = told.of(TranscriptFinal)[0], told.of(UtteranceCompleted)[0]
    assert final.data.text == completed.data.text == "Ever tried."
    assert (final.timing.media_start_ms, final.timing.media_end_ms, final.timing.timed_by) == (400, 1150, "realtime")
    assert final.data.confidence is None
    assert (completed.data.outcome, completed.data.duration_ms) == ("transcribed", 750)
    assert told.of(SpeechStarted)[0].data.opened_by == "realtime"
    assert [change.data.new_state for change in told.of(UserStateChanged)] == ["speaking", "listening"]
    assert told.of(TurnCompleted)[0].data.text == "Ever tried."
    assert told.of(TurnCompleted)[0].data.confidence is None
    assert_whole(told)
    assert not told.faults
    session_asked = server.sessions[0]
    assert session_asked["output_modalities"] == ["text"]
    assert session_asked["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "create_response": False,
        "interrupt_response": False,
    }
    assert set(server.asked) == {"session.update"}, "audio goes out, and nothing else"


async def test_two_utterances_are_two_and_a_late_text_finds_its_own() -> None:
    async with OpenAIRealtime() as server:
        first = "item_101"
        server.scripts = [
            [
                Line(0.6, Onset(0.4)),
                *(Line(1.5, message) for message in server.stopped(1150, first)),
                *utterance(*FAILED),
                Line(3.2, server.completed("Ever tried.", first)[0], wait_s=0.1),
            ]
        ]
        async with heard_by(server, beckett()) as (session, told):
            # on a busy machine the first is completed without its text, and again with it
            await told.until(
                lambda told: {"Ever tried.", "Ever failed."} <= {each.data.text for each in told.of(UtteranceCompleted)}
            )
            await session.close("unpublished")

    texts = {completed.data.text: completed for completed in told.of(UtteranceCompleted)}
    assert (texts["Ever tried."].utterance.index, texts["Ever failed."].utterance.index) == (0, 1)
    assert texts["Ever tried."].timing.media_end_ms == 1150
    assert_whole(told)


async def test_a_text_that_comes_after_the_completion_completes_its_utterance_again() -> None:
    async with OpenAIRealtime() as server:
        first = "item_101"
        stopped = (Line(1.5, message) for message in server.stopped(1150, first))
        late = server.completed("Ever tried.", first)[0]
        server.scripts = [[Line(0.6, Onset(0.4)), *stopped, Line(3.0, late, wait_s=2.5)]]
        async with heard_by(server, beckett()) as (session, told):
            await told.until(lambda told: bool(told.of(TranscriptFinal)))
            await session.close("unpublished")

    once, again = told.of(UtteranceCompleted)
    assert (once.data.outcome, once.data.revises) == ("no_transcript", None)
    assert (again.data.outcome, again.data.revises, again.data.text) == (
        "transcribed",
        once.utterance.revision,
        "Ever tried.",
    )
    assert again.utterance.id == once.utterance.id
    assert len(told.of(SpeechStarted)) == 1


async def test_a_text_that_is_sent_twice_is_said_once() -> None:
    async with OpenAIRealtime() as server:
        again = server.completed("Ever tried.", "item_101")[0]
        server.scripts = [[*utterance(*TRIED), Line(1.5, again, wait_s=0.1)]]
        async with heard_by(server, beckett()) as (session, told):
            await told.until(lambda told: bool(told.of(UtteranceCompleted)))
            await session.close("unpublished")

    assert [final.data.text for final in told.of(TranscriptFinal)] == ["Ever tried."]
    assert [turn.data.text for turn in told.of(TurnCompleted)] == ["Ever tried."]
    assert [completed.data.text for completed in told.of(UtteranceCompleted)] == ["Ever tried."]
    assert_whole(told)


async def test_an_empty_transcript_is_no_text() -> None:
    script: Script = [Line(0.6, Onset(0.4)), Line(1.4, Final(()))]
    async with OpenAIRealtime([script]) as server, heard_by(server, beckett()) as (session, told):
        await told.until(lambda told: bool(told.of(UtteranceCompleted)))
        await session.close("unpublished")

    assert told.of(UtteranceCompleted)[0].data.outcome == "no_transcript"
    assert not told.types("transcript", "turn")
    assert not told.faults
    assert_whole(told)


@pytest.mark.parametrize(
    ("code", "told_of"),
    [
        ("audio_unintelligible", []),
        (
            "rate_limit_exceeded",
            ["the realtime model openai/gpt-realtime could not put speech into words (too many requests)"],
        ),
    ],
)
async def test_a_transcription_that_fails_costs_its_text_alone(code: str, told_of: list[str]) -> None:
    async with OpenAIRealtime() as server:
        over = [*server.stopped(1150, "item_101"), failed_to_transcribe("item_101", code)]
        server.scripts = [[Line(0.6, Onset(0.4)), *(Line(1.4, message) for message in over), *utterance(*FAILED)]]
        async with heard_by(server, beckett()) as (session, told):
            await told.until(lambda told: len(told.of(UtteranceCompleted)) == 2)
            await session.close("unpublished")

    assert [done.data.outcome for done in told.of(UtteranceCompleted)] in (
        ["no_transcript", "transcribed"],
        ["transcribed", "no_transcript"],
    )
    assert told.faults == told_of
    assert len(server.connections) == 1
    assert_whole(told)


async def test_a_drop_in_mid_speech_costs_no_word() -> None:
    dropped: Script = [(0.6, Onset(0.4)), (0.9, Drop())]
    # Counted from the new connection's audio, which begins with what the old one was told last.
    again = utterance(("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))
    async with (
        OpenAIRealtime([dropped, again]) as server,
        heard_by(server, beckett(pace=True), pace=True) as (session, told),
    ):
        await told.until(lambda told: bool(told.of(UtteranceCompleted)))
        await session.close("unpublished")

    assert len(server.connections) == 2
    assert len(told.of(RealtimeSpeechStarted)) == len(told.of(SpeechStarted)) == 1, "it is one and the same speech"
    completed = told.of(UtteranceCompleted)[0]
    assert (completed.data.text, completed.data.reason) == ("Ever tried.", "silence")
    assert (completed.timing.media_start_ms, completed.timing.media_end_ms) == (400, 1150)
    assert completed.timing.reliable
    assert not told.faults
    assert not told.types("source"), "it passed by itself"
    heard_s = (told.of(StreamEnded)[0].data.heard_ms or 0) / 1000
    assert server.connections[1].audio_s > heard_s + REALTIME_TAIL_S - 0.3, "the new one was told all from the start"
    assert_whole(told)


async def test_speech_that_the_new_connection_does_not_hear_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.capture.realtime.session._RESUME_WITHIN_S", 0.5)
    dropped: Script = [(0.6, Onset(0.4)), (0.9, Drop())]
    async with (
        OpenAIRealtime([dropped, ()]) as server,
        heard_by(server, beckett(pace=True), pace=True) as (session, told),
    ):
        await told.until(lambda told: bool(told.of(UtteranceCompleted)))
        await session.close("unpublished")

    assert told.of(RealtimeSpeechEnded)[0].data.reason == "lost"
    assert told.of(SpeechEnded)[0].data.reason == "detector_lost"
    assert [change.data.new_state for change in told.of(UserStateChanged)] == ["speaking", "listening"]
    assert_whole(told)


async def test_speech_is_given_up_while_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.capture.realtime.session._MOST_KEPT", 2 * 16_000)
    async with (
        OpenAIRealtime([[(0.6, Onset(0.4)), (0.9, Drop())]]) as server,
        heard_by(server, beckett(pace=True), pace=True) as (session, told),
    ):
        await told.until(lambda told: bool(told.of(RealtimeSpeechStarted)))
        server.key = "the-right-key-was-taken-back-a-while-ago"
        await told.until(lambda told: bool(told.of(SpeechEnded)))
        await session.close("unpublished")

    assert told.of(SpeechEnded)[0].data.reason == "detector_lost"
    assert told.types("source", "speech") == ["speech.started", "source.failed", "speech.ended"]
    assert_whole(told)


async def test_a_wrong_key_is_told_once_and_heals(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with OpenAIRealtime([utterance(*TRIED)]) as server:
        provider = Realtime(provider="openai", options=server.options)
        right, server.key = server.key, "the-right-key-was-taken-back-a-while-ago"
        async with heard_by(server, beckett(pace=True), pace=True, provider=provider) as (session, told):
            while len(server.connections) < 2:
                await server.refused.wait()
                server.refused.clear()
            server.key = right
            await told.until(lambda told: bool(told.of(TranscriptFinal)))
            await session.close("unpublished")

    assert told.faults == [
        "the realtime model openai/gpt-realtime failed: WSServerHandshakeError 401 (wrong API key?); "
        "it is tried again until it answers"
    ]
    assert len(server.connections) == 3
    failed, recovered = told.of(SourceFailed)[0], told.of(SourceRecovered)[0]
    assert (failed.data.detector, failed.data.reason) == ("realtime", "refused")
    assert (recovered.data.detector, recovered.data.missed_ms) == ("realtime", 0)
    assert recovered.data.gone_ms >= 1_400, "tried after half a second and after one more"
    assert told.types("source", "speech")[:3] == ["source.failed", "source.recovered", "speech.started"]
    # What was said meanwhile was kept, so the new connection's audio begins where the track does.
    assert told.of(TranscriptFinal)[0].timing.media_start_ms == 400
    assert_whole(told)
    assert caplog.records
    assert not [record for record in caplog.records if right in f"{record.getMessage()} {vars(record)}"]


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("invalid_api_key", "failed: wrong API key; it is tried again until it answers"),
        ("insufficient_quota", "failed: no credit left; it is tried again until it answers"),
        ("rate_limit_exceeded", "reports a passing error: too many requests"),
        ("something_else", "reports a passing error: APIError"),
    ],
)
async def test_an_error_event_is_told_in_words_of_ours(code: str, what: str) -> None:
    fatal = "failed" in what
    script: Script = [(0.1, error(code)), (0.2, error(code)), *utterance(*TRIED)]
    async with (
        OpenAIRealtime([script, utterance(*TRIED)]) as server,
        heard_by(server, beckett(pace=True), pace=True) as (session, told),
    ):
        await told.until(lambda told: bool(told.of(TranscriptFinal)))
        await session.close("unpublished")

    assert told.faults == [f"the realtime model openai/gpt-realtime {what}"]
    assert told.types("source") == (["source.failed", "source.recovered"] if fatal else [])
    assert len(server.connections) == (2 if fatal else 1)
    assert told.of(TranscriptFinal)[0].data.text == "Ever tried."
    assert_whole(told)


async def test_a_rate_limit_at_the_door_is_told_once_and_waited_for() -> None:
    async with OpenAIRealtime([utterance(*TRIED)]) as server:
        server.busy = 2
        async with heard_by(server, beckett(pace=True), pace=True) as (session, told):
            await told.until(lambda told: bool(told.of(TranscriptFinal)))
            await session.close("unpublished")

    assert len(told.faults) == len(told.of(SourceFailed)) == len(told.of(SourceRecovered)) == 1
    assert "WSServerHandshakeError 429 (too many requests)" in told.faults[0]
    assert len(server.connections) == 3
    assert_whole(told)


async def test_a_malformed_frame_costs_no_more_than_a_moment() -> None:
    async with (
        OpenAIRealtime([[(0.2, Garbage())], utterance(*TRIED)]) as server,
        heard_by(server, beckett(pace=True), pace=True) as (session, told),
    ):
        await told.until(lambda told: bool(told.of(TranscriptFinal)))
        await session.close("unpublished")

    assert told.of(TranscriptFinal)[0].data.text == "Ever tried."
    assert len(server.connections) == 2
    assert not told.faults
    assert_whole(told)


async def test_a_text_that_comes_after_the_track_is_gone_is_waited_for(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "opening.wav", opening())
    script: Script = [(0.6, Onset(0.4)), (1.0, Partial(TRIED[:1])), Line(3.5, Final(TRIED), wait_s=1.2)]
    async with (
        OpenAIRealtime([script]) as server,
        heard_by(server, WavSource(wav, realtime=False)) as (session, told),
    ):
        await session.ended()
        await session.close("unpublished")

    assert told.of(UtteranceCompleted)[0].data.text == "Ever tried."
    assert_whole(told)


async def test_speech_that_is_told_after_the_track_is_gone_is_waited_for(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "opening.wav", opening())
    late = (("Ever", 2.60, 2.90),)
    script: Script = [Line(3.5, Onset(2.6), wait_s=0.4), Line(3.5, Final(late), wait_s=0.2)]
    async with (
        OpenAIRealtime([script]) as server,
        heard_by(server, WavSource(wav, realtime=False)) as (session, told),
    ):
        await session.ended()
        await session.close("unpublished")

    assert told.of(UtteranceCompleted)[0].data.text == "Ever"
    assert_whole(told)


async def test_a_text_that_never_comes_is_not_waited_for_forever(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "opening.wav", opening())
    script: Script = [(0.6, Onset(0.4)), Line(3.5, Final(TRIED), wait_s=30.0)]
    async with (
        OpenAIRealtime([script]) as server,
        heard_by(server, WavSource(wav, realtime=False)) as (session, told),
    ):
        await session.ended()
        await session.close("disconnected")

    assert told.of(SpeechEnded)[0].data.reason == "disconnected"
    assert told.of(RealtimeSpeechEnded)[0].data.reason == "closed"
    assert_whole(told)


async def test_a_model_that_answers_unasked_is_cut_off_and_told_once() -> None:
    async with (
        OpenAIRealtime([[*utterance(*TRIED), *utterance(*FAILED)]], answers=True) as server,
        heard_by(server, beckett()) as (session, told),
    ):
        await told.until(lambda told: len(told.of(UtteranceCompleted)) == 2)
        await session.close("unpublished")

    assert told.faults[0].endswith("answers without a request; each answer is cut off")
    assert "response.cancel" in server.asked
    assert_whole(told)


async def test_a_session_is_replaced_in_a_quiet_moment_before_it_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed()
    async with (
        OpenAIRealtime([utterance(*TRIED), utterance(*TRIED)]) as server,
        heard_by(server, feed, pace=True) as (session, told),
    ):
        feed.put(opening()[: 2 * 16_000 * 2])
        await told.until(lambda told: bool(told.of(UtteranceCompleted)))
        monkeypatch.setattr("relay.capture.realtime.session._RENEW_AFTER_S", 3.0)
        monkeypatch.setattr("relay.capture.realtime.session._QUIET_S", 0.2)
        while len(server.connections) < 2:  # at the pace of audio
            feed.put(bytes(640))
            await asyncio.sleep(0.02)
        feed.put(opening())
        await told.until(lambda told: len(told.of(UtteranceCompleted)) == 2)
        await session.close("unpublished")

    assert len(server.connections) == 2
    assert len(told.of(TranscriptFinal)) == 2
    assert not told.faults
    assert_whole(told)


async def test_times_that_are_none_of_the_audio_are_null_and_those_that_are_stay() -> None:
    ahead = (("Ever", 60.0, 60.5), ("tried.", 60.6, 61.0))
    again = (("Ever", 5.40, 5.62), ("tried.", 5.70, 6.20))
    script: Script = [
        *(Line(after_s, at.says) for after_s, at in zip((0.6, 1.2, 1.5), utterance(*ahead), strict=True)),
        *utterance(*FAILED),
        Line(4.5, Onset(0.0)),  # as if its count had begun again
        Line(4.6, Final(TRIED[:1])),
        *utterance(*again),
    ]
    async with OpenAIRealtime([script]) as server, heard_by(server, beckett()) as (session, told):
        await told.until(lambda told: len(told.of(TranscriptFinal)) == 4)
        await session.close("unpublished")

    assert [edge.timing.media_start_ms for edge in told.of(RealtimeSpeechStarted)] == [None, 1900, None, 5400]
    assert [edge.timing.media_end_ms for edge in told.of(RealtimeSpeechEnded)] == [None, 2700, None, 6200]
    finals = [(final.timing.media_start_ms, final.timing.media_end_ms) for final in told.of(TranscriptFinal)]
    assert finals == [(None, None), (1900, 2700), (None, None), (5400, 6200)]
    known = [started.timing.occurred_at is not None for started in told.of(SpeechStarted)]
    assert known == [False, True, False, True]
    assert not told.faults
    assert_whole(told)
