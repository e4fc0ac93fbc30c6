"""Fifty people come into a room of a real LiveKit server at once; then some of them speak, three at a time.

Three, and not all of them: the clients, the server and the relay share the machine, and two cores are full with that.
"""

import asyncio
import json
import wave
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
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

PEOPLE = [f"guest-{number:02}" for number in range(50)]

SPEAKERS, AT_ONCE = PEOPLE[:6], 3

PATIENCE_S = 120
"""For each step. To a client that hears nobody, LiveKit alone takes some 20 s here to bring the tracks of fifty."""


def ever_tried(path: Path) -> Path:
    """The first two words of beckett.wav."""
    with wave.open(str(speech_wav()), "rb") as file:
        rate = file.getframerate()
        return write_wav(path, file.readframes(round(1.5 * rate)), rate=rate)


class Tally:
    """Whom each type of event was told of. It looks at a request once: the test shares the cores with the fifty."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver, self._seen = receiver, 0
        self._whom: dict[str, list[str]] = defaultdict(list)

    def of(self, event_type: str) -> list[str]:
        new = self._receiver.answered[self._seen :]
        self._seen += len(new)
        for event in (json.loads(request.body) for request in new):
            if "participant" in event:
                self._whom[event["type"]].append(event["participant"]["identity"])
        return self._whom[event_type]

    def covers(self, event_type: str, people: Sequence[str]) -> bool:
        return set(people) <= set(self.of(event_type))


async def test_fifty_join_at_once_and_each_is_heard_once(server: LiveKitServer, tmp_path: Path) -> None:
    wav = ever_tried(tmp_path / "tried.wav")
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors="stt: {provider: none}") as relay,
    ):
        tally = Tally(receiver)
        await relay.start()
        # somebody is there already: the fifty are to find a relay that listens
        async with participant(server, "host", "hall") as host:
            await host.publish()
            await receiver.wait_for(lambda: tally.of("stream.started") == ["host"], within=30)
            async with crowd(server, "hall", wav, PEOPLE) as people:
                async with asyncio.timeout(PATIENCE_S):
                    await people.published()
                await receiver.wait_for(lambda: len(tally.of("stream.started")) == 1 + len(PEOPLE), within=PATIENCE_S)
                for first in range(0, len(SPEAKERS), AT_ONCE):
                    people.speak(AT_ONCE)
                    wanted = SPEAKERS[first : first + AT_ONCE]
                    await receiver.wait_for(partial(tally.covers, "speech.ended", wanted), within=PATIENCE_S)
            await receiver.wait_for(lambda: len(tally.of("stream.ended")) == len(PEOPLE), within=PATIENCE_S)
        await receiver.wait_for(lambda: len(tally.of("stream.ended")) == 1 + len(PEOPLE), within=30)
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
