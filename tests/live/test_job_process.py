"""Job processes of the service as it runs: what they carry, and that they wait for rooms."""

from pathlib import Path

import psutil
import pytest

from tests.support.cli import SECRET
from tests.support.livekit_server import API_SECRET, LiveKitServer
from tests.support.participant import participant
from tests.support.receiver import receiving
from tests.support.service import service

pytestmark = pytest.mark.live

HIDDEN = {"SPEECH_RELAY_CRM_SECRET": SECRET, "CRM_TOKEN": "token-of-the-crm", "OPENAI_API_KEY": "key-of-openai"}


async def test_no_process_of_a_running_relay_shows_a_secret_to_its_neighbours(
    server: LiveKitServer, tmp_path: Path
) -> None:
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors="stt: {provider: none}", variables=HIDDEN) as relay,
        participant(server, "guest", "hall") as guest,
    ):
        await relay.start()
        await guest.publish()
        await receiver.wait_for(lambda: any(b"stream.started" in each.body for each in receiver.answered), within=30)
        assert relay._process is not None
        started = psutil.Process(relay._process.pid).children(recursive=True)
        assert len(started) >= 3, "a fork server, what keeps track of resources, and a job"
        for process in started:
            shown = Path(f"/proc/{process.pid}/environ").read_bytes()
            for secret in (API_SECRET, *HIDDEN.values()):
                assert secret.encode() not in shown, process.cmdline()
            assert b"LIVEKIT_API" not in shown
        assert len(relay.lines("Ready in ")) == 1
        assert await relay.stop() == 0, relay.tail()
