"""The HTTP API of a running service."""

from pathlib import Path

import httpx
import pytest

from relay.clock import SystemClock
from relay.outbox.outbox import Outbox
from tests.support.builders import new_stream, run
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


async def test_an_endpoint_made_at_run_time_gets_events_at_once_and_survives_a_kill(
    server: LiveKitServer, receiver: Receiver, tmp_path: Path
) -> None:
    def came(path: str) -> list[int]:
        return [each.json()["stream"]["sequence"] for each in receiver.requests if each.path == path]

    options = {"events": ["*"], "rooms": ["room"]}
    async with service(server, receiver.url, tmp_path, detectors="stt: none") as relay:
        config = tmp_path / "config.yaml"
        api = 'api: {runtime_endpoints: {allow: ["127.0.0.0/8"]}, listen:'
        config.write_text(config.read_text().replace("admin: {listen:", api))
        await relay.start()
        async with httpx.AsyncClient(base_url=relay.url, timeout=20) as client:
            url = f"{receiver.url}/killed"
            assert (await client.put("/v1/endpoints/killed", json={"url": url, **options})).status_code == 201
        await relay.kill()
        await relay.start()
        outbox = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="producer", clock=SystemClock())
        try:
            log = await outbox.open_stream(new_stream())
            async with httpx.AsyncClient(base_url=relay.url, timeout=20) as client:
                assert (await client.get("/v1/endpoints/killed")).json()["options"]["url"] == url
                for sequence in range(1, 11):
                    await log.append(run(1, sequence, sequence))
                url = f"{receiver.url}/made"
                assert (await client.put("/v1/endpoints/made", json={"url": url, **options})).status_code == 201
                for sequence in range(11, 21):
                    await log.append(run(1, sequence, sequence))
            await receiver.wait_for(lambda: len(came("/killed")) == 20 and len(came("/made")) == 10)
            assert came("/killed") == list(range(1, 21)), (
                "every event must arrive once and in order, although the relay was killed"
            )
            assert came("/made") == list(range(11, 21)), "a new endpoint must get every event from its making on"
        finally:
            await outbox.aclose()
