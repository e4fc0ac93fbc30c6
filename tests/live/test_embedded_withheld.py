"""An agent's session hears another participant in the place of one whose audio is withheld: nothing of it is told."""

import asyncio
from pathlib import Path

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, UserStateChangedEvent, room_io
from livekit.plugins import silero

from relay import SpeechRelay
from tests.support.audio.story import assert_whole, streams
from tests.support.dispatch.receiver import receiving
from tests.support.livekit.embedding import Job, configured
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import Participant, participant, speech_wav

pytestmark = [pytest.mark.live, pytest.mark.speech]

WITHIN_S = 60.0


def permit(somebody: Participant, everybody: bool) -> None:
    somebody.room.local_participant.set_track_subscription_permissions(
        allow_all_participants=everybody, participant_permissions=[]
    )


async def test_nobody_is_told_of_in_the_place_of_one_whose_audio_is_withheld(
    server: LiveKitServer, tmp_path: Path
) -> None:
    async with receiving() as receiver:

        async def until(event_type: str, at_least: int = 1) -> None:
            def come() -> bool:
                return sum(stream.types().count(event_type) for stream in streams(receiver)) >= at_least

            await receiver.wait_for(come, within=WITHIN_S)

        job, room = Job(), rtc.Room()
        job.room = room  # type: ignore[assignment]  # a real one
        await room.connect(server.url, server.token("agent", "hall", kind="agent"))
        relay = SpeechRelay(configured(tmp_path, receiver.url))
        session: AgentSession[None] = AgentSession(vad=relay.vad(silero.VAD.load()), user_away_timeout=None)
        relay.attach(session, job.context)
        speaking = asyncio.Semaphore(0)

        def changed(event: UserStateChangedEvent) -> None:
            if event.new_state == "speaking":
                speaking.release()

        session.on("user_state_changed", changed)
        async with participant(server, "alice", "hall") as alice, participant(server, "bob", "hall") as bob:
            options = room_io.RoomOptions(participant_identity="alice")
            await session.start(Agent(instructions="Listen."), room=room, room_options=options, record=False)
            await alice.publish(speech_wav("two_cities"), loop=True)
            await until("speech.started")
            permit(alice, False)
            await until("source.failed")
            # the server sends his track in the place of hers
            while not speaking.locked():
                await speaking.acquire()
            await bob.publish(speech_wav(), loop=True)
            async with asyncio.timeout(WITHIN_S):
                for _ in range(2):
                    await speaking.acquire()
            permit(alice, True)
            await until("source.recovered")
            (stream,) = streams(receiver)
            await until("speech.started", stream.types().count("speech.started") + 1)
        await session.aclose()
        await job.shut_down()
        await room.disconnect()
        await until("stream.ended")
        (stream,) = streams(receiver)
    assert_whole(stream)
    assert stream.identity == "alice"
    types = stream.types()
    withheld = types[types.index("source.failed") + 1 : types.index("source.recovered")]
    assert set(withheld) <= {"speech.ended", "utterance.completed"}, "what bob says must not be told as alice's"
