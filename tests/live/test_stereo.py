"""A stereo track is heard whatever the phase of its channels."""

from pathlib import Path

import pytest
from livekit import rtc

from relay.capture.livekit.room import RoomMembership
from relay.clock import SystemClock
from tests.support.livekit.crowd import built, crowd
from tests.support.livekit.fake_listener import FakeListeners
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import speech_wav

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]  # who speaks in stereo may have to be built first


async def test_a_stereo_track_whose_channels_are_in_antiphase_is_heard(server: LiveKitServer, tmp_path: Path) -> None:
    program, listeners, room = built(tmp_path), FakeListeners(), rtc.Room()
    membership = RoomMembership(room, listeners, ("standard",), SystemClock())
    await room.connect(server.url, server.token("relay", "stereo", hidden=True, kind="agent"), rtc.RoomOptions(False))
    membership.start()
    async with crowd(program, server, "stereo", speech_wav(), ["alice"], antiphase=True) as alice:
        await alice.published()
        alice.speak(1)
        await listeners.until(lambda: bool(listeners.opened) and listeners.opened[0].peak > 3_000, within=20)
    await membership.close("shutdown")
    await room.disconnect()
