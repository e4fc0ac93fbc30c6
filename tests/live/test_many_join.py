"""Twenty people come into a room of a real LiveKit server at once, and then all of them speak at once.

Twenty, for the clients, the server and the relay share two cores. LiveKit alone, to a client that hears nobody, takes
some 20 s to bring it the tracks of fifty there.
"""

import asyncio
import wave
from pathlib import Path

import pytest

from tests.support.cli import SECRET
from tests.support.crowd import crowd
from tests.support.livekit_server import LiveKitServer
from tests.support.participant import participant, speech_wav
from tests.support.receiver import Receiver, receiving
from tests.support.service import service
from tests.support.speech import write_wav
from tests.support.story import assert_whole, of, told

pytestmark = pytest.mark.live

PEOPLE = [f"guest-{number:02}" for number in range(20)]

PATIENCE_S = 120
"""Twenty clients, each of which encodes, encrypts and sends, their server and the relay share what cores there are."""


def ever_tried(path: Path) -> Path:
    """The first two words of beckett.wav."""
    with wave.open(str(speech_wav()), "rb") as file:
        rate = file.getframerate()
        return write_wav(path, file.readframes(round(1.5 * rate)), rate=rate)


def told_of(receiver: Receiver, event_type: str) -> int:
    return sum(stream.types().count(event_type) for stream in told(receiver.answered, SECRET))


def who_spoke(receiver: Receiver) -> set[str]:
    """Whose speech has begun and ended."""
    return {stream.identity for stream in told(receiver.answered, SECRET) if stream.ends}


async def test_twenty_join_at_once_and_each_is_heard_once(server: LiveKitServer, tmp_path: Path) -> None:
    wav = ever_tried(tmp_path / "tried.wav")
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors="stt: {provider: none}") as relay,
    ):
        await relay.start()
        # somebody is there already: the twenty are to find a relay that listens
        async with participant(server, "host", "hall") as host:
            await host.publish()
            await receiver.wait_for(lambda: told_of(receiver, "stream.started") == 1, within=30)
            async with crowd(server, "hall", wav, PEOPLE, processes=1) as people:
                async with asyncio.timeout(PATIENCE_S):
                    await people.published()
                await receiver.wait_for(
                    lambda: told_of(receiver, "stream.started") == 1 + len(PEOPLE), within=PATIENCE_S
                )
                people.speak()
                await receiver.wait_for(lambda: len(who_spoke(receiver)) == len(PEOPLE), within=PATIENCE_S)
            await receiver.wait_for(lambda: told_of(receiver, "stream.ended") == len(PEOPLE), within=PATIENCE_S)
        await receiver.wait_for(lambda: told_of(receiver, "stream.ended") == 1 + len(PEOPLE), within=30)
        assert await relay.stop() == 0, relay.tail()

    streams = told(receiver.answered, SECRET)
    assert sorted(stream.identity for stream in streams) == [*PEOPLE, "host"], "one stream each"
    (silent,) = of(streams, "host")
    assert silent.ends == []
    for stream in streams:
        assert_whole(stream)
        assert stream.duplicates == 0
        assert stream.end is not None
        assert stream.end.data.reason == "disconnected"
