"""Endpoints come, change and go while people speak; the call goes on and nothing is lost."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.audio.story import assert_whole, told
from tests.support.cli import SECRET, speech_relay_process
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import Service, service

pytestmark = [pytest.mark.live, pytest.mark.speech]

WITHIN_S = 60.0


def starts(receiver: Receiver) -> int:
    return sum(request.json()["type"] == "speech.started" for request in receiver.answered)


async def more(receiver: Receiver) -> None:
    """Until somebody has begun to speak once more, as this receiver is told."""
    before = starts(receiver)
    await receiver.wait_for(lambda: starts(receiver) > before, within=WITHIN_S)


async def said(relay: Service, text: str) -> str:
    """The line of its log with this text, when it is there."""
    async with asyncio.timeout(WITHIN_S):
        while not (lines := [line for line in relay.log.read_text().splitlines() if text in line]):  # noqa: ASYNC110 - a file sets no event
            await asyncio.sleep(0.05)
    return lines[-1]


async def test_endpoints_follow_the_file_while_people_speak(server: LiveKitServer, tmp_path: Path) -> None:
    async with receiving() as first, receiving() as second, service(server, first.url, tmp_path) as relay:
        config = relay.folder / "config.yaml"
        original = config.read_text()
        await relay.start()
        async with participant(server, "alice", "room") as alice:
            await alice.publish(speech_wav(), loop=True)
            await more(first)

            late = f"  - {{name: late, url: '{second.url}', events: ['*'], secret: {SECRET}}}\nadmin:"
            config.write_text(original.replace("admin:", late))
            relay.hang_up()
            await more(second)

            config.write_text(original.replace("- name: receiver", "- name: receiver\n    nonsense: true"))
            relay.hang_up()
            assert "nonsense" in await said(relay, "is not taken over")
            await more(second)

            config.write_text(original)  # without a signal: a changed file is enough
            await said(relay, "removed late")
            had = len(second.requests)
            await more(first)
            assert len(second.requests) == had, "what was taken out is sent no more"
            listed = json.loads(speech_relay_process("endpoints", "--json", cwd=relay.folder).stdout)["endpoints"]
            assert {one["name"]: one["state"] for one in listed} == {"receiver": "enabled", "late": "not in config"}
        assert await relay.stop() == 0, relay.tail()
        (heard,) = told(first.answered, SECRET)
        assert_whole(heard)
        assert heard.duplicates == 0, "an event arrived twice"
