"""Job processes of the service as it runs: what they carry, and that they wait for rooms."""

import asyncio
import json
from pathlib import Path

import psutil
import pytest
from livekit import api
from livekit.api.twirp_client import ServerError

from relay.capture.livekit.access import Access
from relay.capture.worker.warm_pool import LEAST
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import API_KEY, API_SECRET, LiveKitServer
from tests.support.livekit.participant import participant
from tests.support.service import Service, service

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
            assert b"LIVEKIT_API" not in shown, "a process shows LiveKit's credentials to others on this machine"
        assert len(relay.lines("Ready in ")) == 1
        assert await relay.stop() == 0, relay.tail()


async def test_rooms_that_begin_together_find_processes_that_wait(server: LiveKitServer, tmp_path: Path) -> None:
    rooms = [f"room-{number}" for number in range(LEAST)]
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors="stt: {provider: none}", warm=None) as relay,
    ):
        await relay.start()
        await until_waiting(relay, LEAST)
        async with asyncio.TaskGroup() as group:
            for room in rooms:
                group.create_task(heard(server, receiver, room))
        assert relay.lines("no warmed process") == [], "rooms that begin together must find processes that wait"
        assert await relay.stop() == 0, relay.tail()


async def test_what_a_job_has_in_place_of_the_secret_lists_rooms_and_no_more(server: LiveKitServer) -> None:
    access = Access(server.url, API_KEY, API_SECRET).rooms_only()
    async with access.client() as client:
        await client.room.list_rooms(api.ListRoomsRequest())
        for asked in (
            client.room.create_room(api.CreateRoomRequest(name="made")),
            client.room.list_participants(api.ListParticipantsRequest(room="hall")),
            client.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(agent_name="a", room="hall")),
        ):
            with pytest.raises(ServerError) as refused:
                await asked
            assert refused.value.status in (401, 403), "a job's token must allow no more than to list rooms"


async def until_waiting(relay: Service, many: int) -> None:
    async with asyncio.timeout(60):
        while len(relay.waiting()) < many:  # noqa: ASYNC110 - no event crosses from the service to its test
            await asyncio.sleep(0.05)


async def heard(server: LiveKitServer, receiver: Receiver, room: str) -> None:
    """Somebody is in the room until the relay hears them."""

    def started() -> bool:
        told = (json.loads(each.body) for each in receiver.answered)
        return any(event["type"] == "stream.started" and event["room"]["name"] == room for event in told)

    async with participant(server, f"guest of {room}", room) as guest:
        await guest.publish()
        await receiver.wait_for(started, within=60)
