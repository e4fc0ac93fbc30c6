"""Fifty people come into a room of a real LiveKit server at once; then all of them speak, ten at a time."""

import asyncio
import json
import wave
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.audio.speech import write_wav
from tests.support.audio.story import assert_whole, of, told
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.crowd import built, crowd
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import service

pytestmark = [pytest.mark.live, pytest.mark.alone, pytest.mark.timeout(600)]  # its people may have to be built first

PEOPLE = [f"guest-{number:02}" for number in range(50)]

AT_ONCE = 10

PATIENCE_S = 60
"""For each step."""


def ever_tried(path: Path) -> Path:
    """The first two words of beckett.wav."""
    with wave.open(str(speech_wav()), "rb") as file:
        rate = file.getframerate()
        return write_wav(path, file.readframes(round(1.5 * rate)), rate=rate)


class Tally:
    """Who each type of event was about. It looks at a request once: the test shares the cores with the fifty."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver, self._seen = receiver, 0
        self._whom: dict[str, list[str]] = defaultdict(list)

    async def all(self, event_type: str, people: Sequence[str]) -> None:
        """Until events about all of these came. Raises AssertionError with the missing ones."""

        def missing() -> list[str]:
            self._count()
            return sorted({*people} - {*self._whom[event_type]})

        try:
            await self._receiver.wait_for(lambda: not missing(), within=PATIENCE_S)
        except AssertionError as late:
            told = {kind: len(whom) for kind, whom in self._whom.items()}
            raise AssertionError(f"no {event_type} of {missing()} within {PATIENCE_S} s, but {told}") from late

    def _count(self) -> None:
        new = self._receiver.answered[self._seen :]
        self._seen += len(new)
        for event in (json.loads(request.body) for request in new):
            if "participant" in event:
                self._whom[event["type"]].append(event["participant"]["identity"])


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built before anything runs beside it."""
    return built(tmp_path_factory.mktemp("crowd"))


async def test_fifty_join_at_once_and_each_is_heard_once(program: Path, server: LiveKitServer, tmp_path: Path) -> None:
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
            await tally.all("stream.started", ["host"])
            async with crowd(program, server, "hall", wav, PEOPLE) as people:
                async with asyncio.timeout(PATIENCE_S):
                    await people.published()
                await tally.all("stream.started", PEOPLE)
                for first in range(0, len(PEOPLE), AT_ONCE):
                    people.speak(AT_ONCE)
                    await tally.all("speech.ended", PEOPLE[first : first + AT_ONCE])
            await tally.all("stream.ended", PEOPLE)
        await tally.all("stream.ended", ["host"])
        assert await relay.stop() == 0, relay.tail()

    streams = told(receiver.answered, SECRET)
    assert sorted(stream.identity for stream in streams) == [*PEOPLE, "host"], "one stream each"
    (silent,) = of(streams, "host")
    assert silent.ends == [], "one who says nothing must have no speech"
    for stream in streams:
        assert_whole(stream)
        assert stream.duplicates == 0, "an event arrived twice"
        assert stream.end is not None
        assert stream.end.data.reason == "disconnected", "every stream must say that its participant left"
