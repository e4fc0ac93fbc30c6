"""Ctrl-C while rooms are heard, or their processes start: an orderly end, and nothing but its own words in the log."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.dispatch.receiver import receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import Service, service

pytestmark = pytest.mark.live


@pytest.mark.parametrize("moment", ["registered", "starting", "heard"])
async def test_ctrl_c_ends_run_in_order_without_a_traceback(server: LiveKitServer, tmp_path: Path, moment: str) -> None:
    async with receiving() as receiver, service(server, receiver.url, tmp_path, detectors="stt: none") as relay:
        await relay.launch()
        async with participant(server, "alice", "room") as alice:
            await alice.publish(speech_wav(), loop=True)
            if moment == "heard":
                await receiver.wait(2, within=60)
            else:
                await _line(relay, "Registered with" if moment == "registered" else "Sending an agent")
            assert await relay.interrupt() == 0, relay.tail()
        log = relay.log.read_text()
        assert "Traceback" not in log, "Ctrl-C must leave no traceback"
        assert "KeyboardInterrupt" not in log
        lines = [json.loads(line) for line in log.splitlines()]
        assert [line for line in lines if line["level"] == "error" or "::" in line["message"]] == []


async def _line(relay: Service, text: str) -> None:
    async with asyncio.timeout(60):
        while not relay.lines(text):  # noqa: ASYNC110 - it is written by another process
            await asyncio.sleep(0.01)
