"""A realtime model in the place of both detectors: the whole line, but for the model itself."""

import json
from pathlib import Path

import pytest

from relay.events.speech import SpeechStarted, TranscriptFinal
from tests.support.audio.story import assert_whole, of, told
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.providers.openai_realtime import OpenAIRealtime
from tests.support.providers.stt_script import utterance
from tests.support.service import service

pytest.importorskip("livekit.plugins.openai", reason="speech-relay[openai] is not installed")
pytestmark = pytest.mark.live

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))
FAILED = (("Ever", 1.90, 2.10), ("failed.", 2.20, 2.70))


async def test_two_people_are_heard_by_a_realtime_model_that_never_answers(
    server: LiveKitServer, tmp_path: Path
) -> None:
    async with OpenAIRealtime([[*utterance(*TRIED), *utterance(*FAILED)]]) as model, receiving() as receiver:
        detectors = json.dumps({"provider": "openai", "model": "gpt-realtime", "options": model.options})
        async with service(server, receiver.url, tmp_path, detectors=f"realtime: {detectors}") as relay:
            await relay.start()
            async with participant(server, "alice", "room") as alice, participant(server, "bob", "room") as bob:
                await alice.publish(speech_wav(), loop=True)
                await bob.publish(speech_wav("two_cities"), loop=True)
                await receiver.wait_for(
                    lambda: sum(s.types().count("transcript.final") for s in told(receiver.answered, SECRET)) == 4,
                    within=20.0,
                )
            await receiver.wait_for(lambda: all(s.end is not None for s in told(receiver.answered, SECRET)), within=60)
            assert await relay.stop() == 0, relay.tail()

        streams = told(receiver.answered, SECRET)
        assert sorted(stream.identity for stream in streams) == ["alice", "bob"]
        for identity in ("alice", "bob"):
            (heard,) = of(streams, identity)
            assert_whole(heard)
            assert heard.text == "Ever tried. Ever failed.", "every word that the model heard must be in the events"
            assert heard.types().count("realtime.speech_started") == heard.types().count("realtime.speech_ended") == 2
            assert not [kind for kind in heard.types() if kind.startswith(("vad.", "stt.", "source."))]
            opened = [event for event in heard.events if isinstance(event, SpeechStarted)]
            assert [event.data.opened_by for event in opened] == ["realtime"] * 2
            assert all(event.source.realtime == "openai/gpt-realtime" for event in heard.events)
            finals = [event for event in heard.events if isinstance(event, TranscriptFinal)]
            assert [(final.timing.media_start_ms, final.timing.media_end_ms) for final in finals] == [
                (400, 1150),
                (1900, 2700),
            ]
        assert len(model.connections) == 2
        assert not model.wanted_to_speak, "the relay asked the model for an answer"
        assert set(model.asked) == {"session.update"}, "only settings and audio may be sent to the model"
