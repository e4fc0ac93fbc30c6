"""The relay inside somebody's own voice agent: the examples, in a worker of their own, in a room of a real server."""

import json
import re
from pathlib import Path

import pytest

from relay.events.speech import SpeechStarted, TranscriptFinal
from tests.support.audio.story import Stream, assert_whole, of, streams
from tests.support.dispatch.receiver import Answer, Receiver, receiving
from tests.support.livekit.agent_worker import agent_worker
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.providers.openai_realtime import OpenAIRealtime
from tests.support.providers.stt_script import utterance

pytest.importorskip("livekit.plugins.openai", reason="speech-relay[openai] is not installed")
pytestmark = [pytest.mark.live, pytest.mark.speech]

HEARD_WITHIN_S = 60.0
THE_AGENTS = {"best", "worst", "times", "age", "wisdom"}
"""Words that only the agent says."""
TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))


def count(receiver: Receiver, event_type: str) -> int:
    return sum(stream.types().count(event_type) for stream in streams(receiver))


async def until(receiver: Receiver, event_type: str, at_least: int = 1) -> None:
    await receiver.wait_for(lambda: count(receiver, event_type) >= at_least, within=HEARD_WITHIN_S)


def words(stream: Stream) -> set[str]:
    return set(re.findall("[a-z]+", stream.text.lower()))


async def test_the_users_words_arrive_and_the_agents_never(server: LiveKitServer, tmp_path: Path) -> None:
    async with receiving() as receiver, agent_worker(server, receiver.url, tmp_path, "pipeline") as worker:
        async with participant(server, "alice", "support") as alice:
            microphone = await alice.publish(speech_wav(), loop=True)
            await until(receiver, "utterance.completed", 2)
            alice.mute(microphone)
            await until(receiver, "microphone.muted")
        await until(receiver, "stream.ended")
        assert await worker.stop() == 0, worker.tail()

        (heard,) = streams(receiver)
        assert_whole(heard)
        assert (heard.identity, heard.room) == ("alice", "support")
        assert words(heard) & {"ever", "tried", "failed", "matter", "again", "better"}, heard.text
        assert not words(heard) & THE_AGENTS, heard.text
        assert heard.duplicates == 0, "an event arrived twice"
        assert heard.end is not None
        assert heard.end.data.reason == "disconnected", "the stream must say that the participant left"
        assert {"vad.speech_started", "stt.speech_started", "user.state_changed", "turn.completed"} <= set(
            heard.types()
        )
        assert [event.data.opened_by for event in heard.events if isinstance(event, SpeechStarted)] == ["vad"] * count(
            receiver, "speech.started"
        )
        final = next(event for event in heard.events if isinstance(event, TranscriptFinal))
        assert final.source.vad == "silero"
        assert final.source.stt == "moonshine/tiny-en"
        assert final.timing.occurred_at is not None
        assert abs((final.timing.detected_at - final.timing.occurred_at).total_seconds()) < 5


async def test_a_killed_job_is_told_of_by_the_next_one(server: LiveKitServer, tmp_path: Path) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda _: Answer(status=503)
        async with (
            agent_worker(server, receiver.url, tmp_path, "pipeline") as worker,
            participant(server, "alice", "first") as alice,
        ):
            await alice.publish(speech_wav(), loop=True)
            await receiver.wait(1, within=HEARD_WITHIN_S)
            await worker.kill()
        receiver.answer = lambda _: Answer()
        async with agent_worker(server, receiver.url, tmp_path, "pipeline") as worker:
            async with participant(server, "bob", "second") as bob:
                await bob.publish(speech_wav(), loop=True)
                await until(receiver, "stream.ended")
                (killed,) = of(streams(receiver), "alice")
                assert_whole(killed)
                assert killed.end is not None
                assert killed.end.data.reason == "worker_lost", (
                    "the next job must end the stream of the killed one, as worker_lost"
                )
                await until(receiver, "speech.started", killed.types().count("speech.started") + 1)
                # In mid-speech: the job ends its session, writes down what is open, and sends it.
                assert await worker.stop() == 0, worker.tail()
            (stopped,) = of(streams(receiver), "bob")
            assert_whole(stopped)
            assert stopped.end is not None
            assert stopped.end.data.reason == "shutdown", "the next job must stop in order"


async def test_a_realtime_models_user_is_told_of(server: LiveKitServer, tmp_path: Path) -> None:
    async with OpenAIRealtime([utterance(*TRIED)], answers=True) as model, receiving() as receiver:
        options = json.dumps(model.options)
        async with agent_worker(server, receiver.url, tmp_path, "realtime", REALTIME_OPTIONS=options) as worker:
            async with participant(server, "alice", "support") as alice:
                await alice.publish(speech_wav(), loop=True)
                await until(receiver, "utterance.completed")
            await until(receiver, "stream.ended")
            assert await worker.stop() == 0, worker.tail()

        (heard,) = streams(receiver)
        assert_whole(heard)
        assert heard.text == "Ever tried.", "the user's words must be in the events"
        assert heard.end is not None
        assert heard.end.data.reason == "disconnected", "the stream must say that the participant left"
        assert all(event.source.realtime == "openai/gpt-realtime" for event in heard.events)
        (started,) = [event for event in heard.events if isinstance(event, SpeechStarted)]
        assert started.data.opened_by == "realtime"
        assert started.timing.media_start_ms == 100, "as the model says it: its semantic VAD names no padding"
        assert started.timing.occurred_at is not None
