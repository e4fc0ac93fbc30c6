"""``run`` says what it will do and when it is ready; ``status`` follows it, also once it was killed."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.dispatch.receiver import receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant
from tests.support.outbox.operator import Folder
from tests.support.service import service

pytestmark = pytest.mark.live


async def until_ready(operator: Folder) -> None:
    """What the service reports is in the log some moments after its health port says so."""
    async with asyncio.timeout(20):
        while (await operator.run("status")).returncode:
            pass


async def test_run_and_status_tell_what_the_relay_does(server: LiveKitServer, tmp_path: Path) -> None:
    async with receiving() as receiver, service(server, receiver.url, tmp_path, detectors="stt: none") as relay:
        operator = Folder(tmp_path, configured=True)
        await relay.start()
        await until_ready(operator)
        shown = await operator.json("status")
        assert (shown["relay"], shown["rooms_unheard"], shown["waits_for"]) == ("ready", 0, None)
        messages = [json.loads(line)["message"] for line in relay.lines('"logger": "relay.')]
        plan = next(n for n, message in enumerate(messages) if message.startswith(f"Listens on {server.url}"))
        ready = next(n for n, message in enumerate(messages) if message.startswith("Ready in "))
        assert plan < ready
        assert "sending to receiver; health at http://127.0.0.1:" in messages[ready]
        async with participant(server, "alice-of-acme", "support-42"):
            async with asyncio.timeout(30):
                while (await operator.json("status"))["rooms_heard"] == 0:
                    pass
            assert await relay.stop() == 0
        (begun,) = relay.lines('"message": "Listening in room support-42"')
        (over,) = relay.lines('"message": "Stopped listening in room support-42 after ')
        assert '"level": "info"' in begun
        assert '"level": "info"' in over
        assert not [line for line in relay.lines("alice-of-acme") if '"logger": "relay' in line], (
            "an identity is in the log"
        )
        assert (await operator.json("status", code=1))["relay"] == "stopped"
        await relay.start()
        await until_ready(operator)
        await relay.kill()
        lost = await operator.json("status", code=1)
        assert (lost["relay"], lost["rooms_heard"]) == ("lost", None), "status must not call a killed relay stopped"
