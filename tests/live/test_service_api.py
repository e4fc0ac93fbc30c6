"""The HTTP API of a running service."""

from pathlib import Path

import httpx
import pytest

from tests.support.dispatch.receiver import Receiver
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.service import service

pytestmark = pytest.mark.live


async def test_a_service_serves_its_log_and_acts_on_its_endpoints(
    server: LiveKitServer, receiver: Receiver, tmp_path: Path
) -> None:
    async with service(server, receiver.url, tmp_path, detectors="stt: none") as relay:
        config = tmp_path / "config.yaml"
        config.write_text(config.read_text().replace("admin:", "api:"))
        await relay.start()
        async with httpx.AsyncClient(base_url=relay.url, timeout=20) as client:
            assert (await client.get("/v1/rooms")).json() == {"rooms": [], "next": None}
            (endpoint,) = (await client.get("/v1/endpoints")).json()["endpoints"]
            assert (endpoint["name"], endpoint["state"]) == ("receiver", "enabled")
            disabled = await client.post("/v1/endpoints/receiver/disable", json={})
            assert disabled.json()["changed"] is True
            (endpoint,) = (await client.get("/v1/endpoints")).json()["endpoints"]
            assert endpoint["state"] == "disabled"
            async with client.stream("GET", "/v1/events/stream") as events:
                assert events.status_code == 200
                assert await relay.stop() == 0, relay.tail()
                assert [line async for line in events.aiter_lines() if line.startswith("data")] == []
