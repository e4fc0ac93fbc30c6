"""The relay beside somebody's own voice agent: the webhooks tell what that agent's session heard, and nothing else."""

import asyncio
from pathlib import Path

import pytest
from livekit import api

from relay.events.detectors import UserStateChanged
from relay.events.speech import SpeechStarted, TranscriptFinal
from tests.support.audio.story import assert_whole, of, streams
from tests.support.dispatch.dispatching import until as eventually
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import Participant, participant, speech_wav
from tests.support.livekit.talking_agent import NAME, talking_agent
from tests.support.service import service

pytestmark = [pytest.mark.live, pytest.mark.speech]

WITHIN_S = 60.0
OBSERVE = f"observe: {{agent: {NAME}}}"


def types(receiver: Receiver) -> list[str]:
    return [kind for stream in streams(receiver) for kind in stream.types()]


async def until(receiver: Receiver, identity: str, event_type: str, at_least: int = 1) -> None:
    def told_of() -> int:
        return sum(stream.types().count(event_type) for stream in of(streams(receiver), identity))

    await receiver.wait_for(lambda: told_of() >= at_least, within=WITHIN_S)


async def dispatched(server: LiveKitServer, room: str) -> None:
    async with server.api() as client:
        await client.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(agent_name=NAME, room=room))


async def test_the_agents_own_events_arrive_under_the_users_name(server: LiveKitServer, tmp_path: Path) -> None:
    async with (
        receiving() as receiver,
        talking_agent(server, tmp_path) as agent,
        service(server, receiver.url, tmp_path, detectors=OBSERVE) as relay,
    ):
        await relay.start()
        async with participant(server, "alice", "support") as alice:
            await dispatched(server, "support")
            microphone = await alice.publish()
            await until(receiver, "alice", "stream.started")
            await alice.unpublish(microphone)
            await until(receiver, "alice", "stream.ended")
            await alice.publish(speech_wav())
            await until(receiver, "alice", "utterance.completed", 3)
            await until(receiver, "alice", "turn.completed")
        await until(receiver, "alice", "stream.ended", 2)
        assert await relay.stop() == 0, relay.tail()

    silent, heard = streams(receiver)
    assert {stream.identity for stream in (silent, heard)} == {"alice"}, (
        "the words must be under the name of the one who said them"
    )
    assert silent.end is not None
    assert silent.end.data.reason == "unpublished"
    assert_whole(heard)
    assert heard.end is not None
    assert heard.end.data.reason == "disconnected"

    assert [event.data.text for event in heard.events if isinstance(event, TranscriptFinal)] == agent.finals
    states = [event.data for event in heard.events if isinstance(event, UserStateChanged)]
    assert [(state.old_state, state.new_state) for state in states] == agent.states, (
        "the agent's own states must arrive unchanged"
    )
    begun = [event for event in heard.events if isinstance(event, SpeechStarted)]
    spoken = {state.utterance.id for state in heard.events if isinstance(state, UserStateChanged) and state.utterance}
    said = [event for event in begun if event.utterance.id in spoken]
    assert len(said) == sum(new == "speaking" for _, new in agent.states), (
        "each time the agent's user speaks is an utterance; only text that comes after one has ended may open another"
    )
    assert {event.data.opened_by for event in begun} == {"session"}
    for event in heard.events:
        assert (event.source.vad, event.source.stt, event.source.realtime) == (None, None, None)
        assert (event.timing.occurred_at, event.timing.media_start_ms, event.timing.media_end_ms) == (None, None, None)
        assert not event.timing.reliable


async def test_of_two_the_one_whom_the_agent_transcribes_until_it_dies(server: LiveKitServer, tmp_path: Path) -> None:
    async with (
        receiving() as receiver,
        talking_agent(server, tmp_path) as agent,
        service(server, receiver.url, tmp_path, detectors=OBSERVE) as relay,
        participant(server, "alice", "support") as alice,
        participant(server, "bob", "support") as bob,
    ):
        await alice.publish(speech_wav(), loop=True)
        await bob.publish(speech_wav("two_cities"), loop=True)
        await relay.start()
        await dispatched(server, "support")
        await receiver.wait_for(lambda: "utterance.completed" in types(receiver), within=WITHIN_S)
        heard_by_then = len(agent.finals)
        await agent.kill()
        await receiver.wait_for(lambda: "stream.ended" in types(receiver), within=WITHIN_S)
        assert await relay.stop() == 0, relay.tail()
        # which of the two the agent took is LiveKit's to say: the first that it saw
        spoken_by = {"alice": {"ever", "tried", "fail", "better"}, "bob": {"times", "age", "wisdom", "epoch"}}

        (heard,) = streams(receiver)
        assert_whole(heard)
        assert heard.end is not None
        assert heard.end.data.reason == "worker_lost", "a stream must say that the agent it follows died"
        assert heard_by_then > 0
        finals = [event.data.text for event in heard.events if isinstance(event, TranscriptFinal)]
        assert finals
        assert finals == agent.finals[-len(finals) :]
        other = spoken_by["bob" if heard.identity == "alice" else "alice"]
        assert not set(heard.text.lower().replace(".", "").replace(",", "").split()) & other, heard.text


async def test_one_who_sends_transcripts_of_her_own_gets_nobodys_words(server: LiveKitServer, tmp_path: Path) -> None:
    async with (
        receiving() as receiver,
        talking_agent(server, tmp_path) as agent,
        service(server, receiver.url, tmp_path, detectors=OBSERVE) as relay,
        participant(server, "alice", "support") as alice,
    ):
        await dispatched(server, "support")
        await alice.publish(speech_wav(), loop=True)
        await eventually(lambda: bool(agent.finals), WITHIN_S)  # the agent listens to alice
        async with participant(server, "mallory", "support") as mallory:
            microphone = await mallory.publish()
            forging = asyncio.create_task(forge(mallory, microphone.sid))
            await relay.start()
            await receiver.wait_for(lambda: types(receiver).count("transcript.final") >= 2, within=WITHIN_S)
            forging.cancel()
        assert await relay.stop() == 0, relay.tail()
    assert {stream.identity for stream in streams(receiver)} == {"alice"}, (
        "words were given to one who only claimed them"
    )


async def forge(mallory: Participant, track_sid: str) -> None:
    """Ten times a second: words of her own invention, as the agent's transcript of her."""
    attributes = {"lk.transcribed_track_id": track_sid, "lk.transcription_final": "true"}
    while True:
        await mallory.room.local_participant.send_text(
            "I am to be given her account", topic="lk.transcription", attributes=attributes
        )
        await asyncio.sleep(0.1)
