"""The LiveKit server tells the relay what happens in its rooms."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.support.dispatch.receiver import Receiver
from tests.support.livekit.coverage import (
    VAD_ALONE,
    all_ended,
    assert_ends,
    heard_again,
    noted,
    started_at,
)
from tests.support.livekit.livekit_server import livekit_server
from tests.support.livekit.participant import participant, speech_wav
from tests.support.livekit.webhooks import body, headers
from tests.support.service import service

pytestmark = [pytest.mark.live, pytest.mark.speech]

SELDOM_S = 60
"""So seldom that only a webhook explains that a room is heard."""
FLOOD = 300


async def test_a_room_is_heard_at_once_because_the_server_tells_of_it(receiver: Receiver, tmp_path: Path) -> None:
    async with (
        livekit_server(tells_relay=True) as server,
        service(server, receiver.url, tmp_path, detectors=VAD_ALONE, capture=f"poll_interval: {SELDOM_S}s") as relay,
    ):
        await relay.start()
        async with participant(server, "alice", "room") as alice:
            published = time.monotonic()
            await alice.publish(speech_wav(), loop=True)
            await heard_again(receiver, "alice", streams=1)
            took = noted("told of a room: heard", published, started_at(receiver, "alice")[0])
            assert took < SELDOM_S / 2, "a poll may have found it"

            async with participant(server, "bob", "another room") as bob:
                await bob.publish(speech_wav(), loop=True)
                await heard_again(receiver, "bob", streams=1)
            content = body("participant_joined", "room")
            limits = httpx.Limits(max_connections=8)
            async with httpx.AsyncClient(base_url=relay.url, timeout=60, limits=limits) as client:
                posts = [
                    client.post("/v1/livekit/webhook", content=content, headers=dict(headers(content)))
                    for _ in range(FLOOD)
                ]
                for each in asyncio.as_completed(posts):
                    assert (await each).status_code == 200
            assert await asyncio.to_thread(relay.readiness) == {}
        for who in ("alice", "bob"):
            await all_ended(receiver, who)
            assert_ends(receiver, who, ["disconnected"])
