"""The relay inside somebody's own agent: it hears what the session hears, and the session does not notice."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import LanguageCode, UserInputTranscribedEvent, UserStateChangedEvent, llm, stt, vad
from livekit.plugins import deepgram, silero

from relay import SpeechRelay
from relay.capture.audio.wav import WavSource
from relay.capture.livekit.stats import JitterBuffer, RoomStats
from relay.config.problems import Mistakes
from relay.events.detectors import TurnCompleted
from relay.events.speech import SpeechStarted, TranscriptFinal
from tests.support.audio.speech import speech
from tests.support.audio.story import Stream, assert_whole, streams
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.embedding import Conversation, Job, Script, Spoken, configured, ever_tried

pytestmark = pytest.mark.speech


@pytest.fixture(scope="module")
def silero_vad() -> silero.VAD:
    loaded = silero.VAD.load()
    assert isinstance(loaded, silero.VAD)
    return loaded


async def ended(receiver: Receiver, count: int = 1) -> list[Stream]:
    await receiver.wait_for(lambda: sum(stream.end is not None for stream in streams(receiver)) >= count)
    return streams(receiver)


async def overheard(folder: Path, detector: vad.VAD, *, wrapped: bool = True, deliver: bool = True) -> Conversation:
    """A conversation that the relay of ``folder`` follows, and what its shutdown leaves."""
    relay, job = SpeechRelay(folder / "config.yaml", deliver=deliver), Job()
    recognizer = ever_tried()
    conversation = Conversation(
        job,
        vad=relay.vad(detector) if wrapped else detector,
        stt=relay.stt(recognizer) if wrapped else recognizer,
    )
    relay.attach(conversation.session, job.context)
    await conversation()
    await job.shut_down()
    return conversation


async def test_a_session_goes_on_the_same_with_and_without_the_relay(tmp_path: Path, silero_vad: silero.VAD) -> None:
    alone = Conversation(Job(), vad=silero_vad, stt=ever_tried())
    undisturbed = await alone()
    assert "heard Ever tried." in undisturbed
    assert "user: Ever tried." in undisturbed
    assert "assistant: I see. Please go on." in undisturbed
    configured(tmp_path)
    assert (await overheard(tmp_path, silero_vad)).happened == undisturbed


async def test_what_the_user_said_arrives_with_its_times_and_what_the_agent_said_does_not(
    tmp_path: Path, silero_vad: silero.VAD
) -> None:
    async with receiving() as receiver:
        configured(tmp_path, receiver.url)
        await overheard(tmp_path, silero_vad)
        (heard,) = await ended(receiver)
    assert_whole(heard)
    assert (heard.identity, heard.room, heard.text) == ("alice", "support", "Ever tried.")
    assert heard.end is not None
    assert heard.end.data.reason == "shutdown"
    assert heard.end.data.heard_ms is not None
    assert 5900 < heard.end.data.heard_ms < 6100, "four seconds, and two of the silence with which LiveKit closes"
    (final,) = [event for event in heard.events if isinstance(event, TranscriptFinal)]
    assert (final.timing.media_start_ms, final.timing.media_end_ms, final.data.confidence) == (500, 1300, 0.9)
    assert final.timing.occurred_at is not None
    assert (final.source.vad, final.source.stt) == ("silero", "script/by-heart")
    first = next(event for event in heard.events if isinstance(event, SpeechStarted))
    assert first.data.opened_by == "vad"
    assert first.timing.media_start_ms is not None
    assert 300 < first.timing.media_start_ms < 700
    assert [event.data.text for event in heard.events if isinstance(event, TurnCompleted)] == ["Ever tried."]
    assert not any("I see" in request.body.decode() for request in receiver.requests)


async def test_times_are_less_what_webrtc_holds_the_audio_back(
    tmp_path: Path, silero_vad: silero.VAD, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(self: RoomStats, track: object) -> JitterBuffer:
        buffer = JitterBuffer()
        buffer.behind_s = 60.0
        return buffer

    monkeypatch.setattr(RoomStats, "follow", follow)
    async with receiving() as receiver:
        configured(tmp_path, receiver.url)
        await overheard(tmp_path, silero_vad)
        (heard,) = await ended(receiver)
    first = next(event for event in heard.events if isinstance(event, SpeechStarted))
    assert first.timing.occurred_at is not None
    assert 60 < (first.timing.detected_at - first.timing.occurred_at).total_seconds() < 65


async def test_a_final_that_the_agents_provider_repeats_is_told_once(tmp_path: Path, silero_vad: silero.VAD) -> None:
    recognizer, (again_at, again) = ever_tried(), ever_tried().lines[2]
    recognizer.lines = (*recognizer.lines[:3], (again_at + 0.05, again), *recognizer.lines[3:])
    async with receiving() as receiver:
        relay, job = SpeechRelay(configured(tmp_path, receiver.url)), Job()
        conversation = Conversation(job, vad=relay.vad(silero_vad), stt=relay.stt(recognizer))
        relay.attach(conversation.session, job.context)
        await conversation()
        await job.shut_down()
        (heard,) = await ended(receiver)
    assert conversation.happened.count("heard Ever tried.") == 2, "the agent's own session hears what it would hear"
    assert_whole(heard)
    assert heard.text == "Ever tried."


async def test_without_wrappers_the_sessions_own_events_arrive(tmp_path: Path, silero_vad: silero.VAD) -> None:
    async with receiving() as receiver:
        configured(tmp_path, receiver.url)
        await overheard(tmp_path, silero_vad, wrapped=False)
        (heard,) = await ended(receiver)
    assert_whole(heard)
    assert heard.text == "Ever tried."
    assert {"user.state_changed", "turn.completed", "utterance.completed"} <= set(heard.types())
    assert not [kind for kind in heard.types() if kind.startswith(("vad.", "stt."))]
    final = next(event for event in heard.events if isinstance(event, TranscriptFinal))
    assert (final.timing.media_start_ms, final.source.vad, final.source.stt) == (None, None, "script/by-heart")


async def test_without_delivery_the_events_wait_in_the_log_for_the_next_who_delivers(
    tmp_path: Path, silero_vad: silero.VAD
) -> None:
    async with receiving() as receiver:
        configured(tmp_path, receiver.url)
        await overheard(tmp_path, silero_vad, deliver=False)
        assert not receiver.requests
        await overheard(tmp_path, silero_vad)
        before, now = await ended(receiver, 2)
    assert_whole(before)
    assert_whole(now)


async def test_a_session_that_turns_to_somebody_else_is_followed(tmp_path: Path, silero_vad: silero.VAD) -> None:
    async with receiving() as receiver:
        relay, job = SpeechRelay(configured(tmp_path, receiver.url)), Job()
        conversation = Conversation(job, vad=relay.vad(silero_vad), stt=relay.stt(ever_tried()))
        relay.attach(conversation.session, job.context)
        having_it = asyncio.create_task(conversation())
        await receiver.wait_for(lambda: any("turn.completed" in stream.types() for stream in streams(receiver)))
        conversation.session.linked = job.room.joined("bob")
        await receiver.wait_for(lambda: any(stream.identity == "bob" for stream in streams(receiver)))
        await having_it
        await job.shut_down()
        alice, bob = await ended(receiver, 2)
    assert_whole(alice)
    assert_whole(bob)
    assert (alice.identity, bob.identity) == ("alice", "bob")
    assert alice.text == "Ever tried."
    assert not bob.text


@pytest.mark.parametrize("wrapped", [True, False])
async def test_words_said_before_a_switch_are_never_somebody_elses(
    tmp_path: Path, silero_vad: silero.VAD, *, wrapped: bool
) -> None:
    recognizer = ever_tried()
    said = stt.SpeechData(language=LanguageCode("en"), text="My turn.", start_time=2.2, end_time=2.8, confidence=0.9)
    recognizer.lines += ((3.0, stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[said])),)
    async with receiving() as receiver:
        relay, job = SpeechRelay(configured(tmp_path, receiver.url)), Job()
        conversation = Conversation(
            job,
            vad=relay.vad(silero_vad) if wrapped else silero_vad,
            stt=relay.stt(recognizer) if wrapped else recognizer,
        )

        def switches(event: UserInputTranscribedEvent) -> None:
            if event.transcript == "Ever":
                conversation.session.linked = job.room.joined("bob")

        relay.attach(conversation.session, job.context)
        conversation.session.on("user_input_transcribed", switches)
        await conversation()
        await job.shut_down()
        alice, bob = await ended(receiver, 2)
    assert "heard Ever tried." in conversation.happened, "the former one's final comes after the switch"
    assert_whole(alice)
    assert_whole(bob)
    assert (alice.identity, bob.identity) == ("alice", "bob")
    assert bob.text == "My turn."
    turns = [event.data.text for event in bob.events if isinstance(event, TurnCompleted)]
    assert not any("tried" in text for text in turns)


async def test_what_the_user_types_is_not_what_the_user_says(tmp_path: Path, silero_vad: silero.VAD) -> None:
    async with receiving() as receiver:
        relay, job = SpeechRelay(configured(tmp_path, receiver.url)), Job()
        conversation = Conversation(job, vad=relay.vad(silero_vad), stt=relay.stt(Script()))
        conversation.spoken = Spoken(0.0, 2.0)
        relay.attach(conversation.session, job.context)
        conversation.session.on(
            "agent_state_changed",
            lambda event: (
                conversation.session.generate_reply(user_input="typed") if event.old_state == "initializing" else None
            ),
        )
        assert "user: typed" in await conversation()
        await job.shut_down()
        (heard,) = await ended(receiver)
    assert heard.types() == ["stream.started", "stream.ended"]


def test_a_wrapped_detector_is_the_detector(tmp_path: Path, silero_vad: silero.VAD) -> None:
    relay = SpeechRelay(configured(tmp_path))
    wrapped: Any = relay.vad(silero_vad)
    assert isinstance(wrapped, silero.VAD)
    assert wrapped.capabilities is silero_vad.capabilities
    assert (wrapped.model, wrapped.provider) == (silero_vad.model, silero_vad.provider)
    assert wrapped.min_silence_duration == silero_vad.min_silence_duration

    recognizer = deepgram.STT(api_key="a-key", model="nova-3")
    known = relay.stt(recognizer)
    assert isinstance(known, deepgram.STT)
    assert known.capabilities is recognizer.capabilities
    assert (known.label, known.model, known.provider) == (recognizer.label, recognizer.model, recognizer.provider)
    # The plugin's own methods, and what the session does behind the scenes, reach the plugin.
    known.update_options(model="nova-2")
    assert recognizer.model == "nova-2"
    heard: list[Any] = []
    known.on("metrics_collected", heard.append)
    recognizer.emit("metrics_collected", "metrics")
    assert heard == ["metrics"]

    by_heart = ever_tried()
    relay.stt(by_heart)._update_session_keyterms(["relay"])
    assert by_heart.keyterms == ["relay"]


async def test_the_events_of_a_wrapped_stream_are_those_of_the_stream(tmp_path: Path, silero_vad: silero.VAD) -> None:
    relay = SpeechRelay(configured(tmp_path))
    # at the model's own rate: a resampler dithers, and no two of them alike
    frames = [frame async for frame in WavSource(speech("beckett.wav"), realtime=False)]

    async def edges(detector: vad.VAD) -> list[tuple[vad.VADEventType, int, float, float]]:
        stream = detector.stream()
        assert isinstance(stream, vad.VADStream)
        for frame in frames:
            stream.push_frame(frame)
        stream.end_input()
        found = [(event.type, event.samples_index, event.timestamp, event.speech_duration) async for event in stream]
        await stream.aclose()
        return found

    told = await edges(relay.vad(silero_vad))
    assert vad.VADEventType.END_OF_SPEECH in {kind for kind, *_ in told}
    assert told == await edges(silero_vad)


async def test_a_wrapped_recognizer_is_closed_and_fails_as_it_would(tmp_path: Path) -> None:
    relay = SpeechRelay(configured(tmp_path))
    recognizer = ever_tried()
    wrapped = relay.stt(recognizer)
    with pytest.raises(NotImplementedError):
        await wrapped.recognize([])
    async with wrapped.stream() as stream:
        assert isinstance(stream, stt.RecognizeStream)
        stream.start_time_offset = 3.0
        assert stream.start_time_offset == 3.0
    await wrapped.aclose()
    assert recognizer.closed


def test_a_wrapped_realtime_model_is_the_model(tmp_path: Path) -> None:
    openai = pytest.importorskip("livekit.plugins.openai", reason="speech-relay[openai] is not installed")
    model = openai.realtime.RealtimeModel(api_key="a-key")
    wrapped = SpeechRelay(configured(tmp_path)).realtime(model)
    assert isinstance(wrapped, type(model))
    assert isinstance(wrapped, llm.RealtimeModel)
    assert wrapped.capabilities is model.capabilities


def test_a_bad_configuration_is_told_at_once_with_each_mistake(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("endpoints: [{name: crm, url: 'no url', secrets: x}]\n")
    with pytest.raises(Mistakes) as error:
        SpeechRelay(path)
    assert "config.yaml:1" in str(error.value)
    assert json.dumps(str(error.value)).count("\\n") >= 1


async def test_a_job_that_ends_while_the_relay_is_being_closed_waits_for_it(tmp_path: Path) -> None:
    async with receiving() as receiver:
        relay, job = SpeechRelay(configured(tmp_path, receiver.url)), Job()
        conversation = Conversation(job, stt=relay.stt(ever_tried()))
        relay.attach(conversation.session, job.context)
        await conversation()
        closing = asyncio.create_task(relay.aclose())
        await asyncio.sleep(0)
        closing.cancel()  # as a timeout of the agent's own does
        await job.shut_down()
        (stream,) = streams(receiver)
    assert stream.end is not None, "the job has ended, and its process with it"
    assert_whole(stream)


async def test_who_is_back_after_the_agent_reconnected_has_not_left(tmp_path: Path, silero_vad: silero.VAD) -> None:
    async with receiving() as receiver:
        relay, job = SpeechRelay(configured(tmp_path, receiver.url)), Job()
        conversation = Conversation(job, vad=relay.vad(silero_vad), stt=relay.stt(ever_tried()))
        alice = conversation.session.linked

        def reconnects(event: UserStateChangedEvent) -> None:
            """As LiveKit reports a full reconnect: everybody has left, and then everybody is here, as before."""
            if event.new_state == "speaking":
                conversation.session.linked = None
                del job.room.remote_participants["alice"]
                job.room.emit("participant_disconnected", alice)
                conversation.session.linked = job.room.remote_participants["alice"] = alice
                job.room.emit("participant_connected", alice)

        relay.attach(conversation.session, job.context)
        conversation.session.on("user_state_changed", reconnects)
        await conversation()
        await job.shut_down()
        (heard,) = await ended(receiver)
    assert_whole(heard)
    assert heard.ends[0] == "silence"
    assert heard.text == "Ever tried."
