"""Muted by the server in mid-sentence, in a real room: the last final comes after the end of speech was told. It
belongs to the utterance that it was spoken in."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from livekit import api

from relay.events.speech import SpeechEnded, SpeechStarted, TranscriptFinal, UtteranceCompleted
from tests.support.audio.story import Stream, assert_whole, told
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.providers.deepgram import Deepgram, results
from tests.support.providers.stt_script import Onset, Partial, Script
from tests.support.providers.stt_server import Connection
from tests.support.service import service

pytestmark = [pytest.mark.live, pytest.mark.speech]

WITHIN_S = 60.0
THINKS_S = 1.4
FIRST = (("It", 1.3, 1.4), ("was", 1.4, 1.6), ("the", 1.6, 1.7), ("best", 1.8, 2.2))
SECOND = (("of", 2.3, 2.5), ("times", 2.6, 3.2))


@dataclass
class SlowDeepgram(Deepgram):
    """Says something more when the test tells it to."""

    socket: web.WebSocketResponse | None = None

    async def _play(self, socket: web.WebSocketResponse, connection: Connection, script: Script) -> None:
        self.socket = socket
        await super()._play(socket, connection, script)

    async def answer(self) -> None:
        assert self.socket is not None
        await asyncio.sleep(THINKS_S)  # the provider thinks
        await self._say(self.socket, [results(SECOND, is_final=True, speech_final=True)])


def heard(receiver: Receiver) -> Stream:
    (stream,) = told(receiver.answered, SECRET) or [Stream()]
    return stream


async def until(receiver: Receiver, event_type: str, count: int = 1) -> None:
    await receiver.wait_for(lambda: heard(receiver).types().count(event_type) >= count, within=WITHIN_S)


async def mute(server: LiveKitServer, room: str, identity: str, sid: str) -> None:
    async with server.api() as client:
        request = api.MuteRoomTrackRequest(room=room, identity=identity, track_sid=sid, muted=True)
        await client.room.mute_published_track(request)


async def test_a_final_after_a_mute_in_mid_sentence_joins_the_sentence(server: LiveKitServer, tmp_path: Path) -> None:
    script: Script = [
        (1.5, Onset(1.3)),
        (2.4, results(FIRST, is_final=True)),
        (3.4, Partial(SECOND[:1])),
        (3.5, Partial(SECOND)),
    ]
    async with SlowDeepgram([script]) as provider, receiving() as receiver:
        detectors = f"stt: {json.dumps({'provider': 'deepgram', 'options': provider.options})}"
        async with service(server, receiver.url, tmp_path, detectors=detectors) as relay:
            await relay.start()
            async with participant(server, "alice", "room") as alice:
                microphone = await alice.publish(speech_wav("two_cities"), loop=True)
                await until(receiver, "transcript.interim")
                await mute(server, "room", "alice", microphone.sid)
                await until(receiver, "speech.ended")
                await provider.answer()
                await until(receiver, "transcript.final", 2)
                await until(receiver, "utterance.completed")
            await until(receiver, "stream.ended")
            assert await relay.stop() == 0, relay.tail()

    stream = heard(receiver)
    assert_whole(stream)
    kinds = SpeechStarted | SpeechEnded | TranscriptFinal | UtteranceCompleted
    told_of = {event.utterance.id for event in stream.events if isinstance(event, kinds)}
    assert len(told_of) == 1, stream.types()
    (ended,) = [event for event in stream.events if isinstance(event, SpeechEnded)]
    assert ended.data.reason == "muted", "the speech must end with the mute"
    (completed,) = [event for event in stream.events if isinstance(event, UtteranceCompleted)]
    assert (completed.data.outcome, completed.data.text) == ("transcribed", "It was the best of times"), (
        "text that comes after the mute belongs to the sentence before it"
    )
