"""WebRTC's statistics of a whole room name its tracks as their own statistics do."""

import asyncio

import pytest
from livekit import rtc

from relay.capture.livekit import stats
from relay.capture.livekit.stats import JitterBuffer, RoomStats
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav

pytestmark = pytest.mark.live


async def test_a_track_is_found_in_the_statistics_of_its_room(
    server: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []
    enough = asyncio.Event()
    of_track, of_room = rtc.Track.get_stats, rtc.Room.get_rtc_stats

    async def ask_track(track: rtc.Track) -> list[rtc.stats.RtcStats]:
        questions.append(track.sid)
        return await of_track(track)

    async def ask_room(room: rtc.Room) -> rtc.room.RtcStats:
        questions.append("room")
        if questions.count("room") == 4:
            enough.set()
        return await of_room(room)

    monkeypatch.setattr(rtc.Track, "get_stats", ask_track)
    monkeypatch.setattr(rtc.Room, "get_rtc_stats", ask_room)
    monkeypatch.setattr(stats, "LOOK_EVERY_S", 0.2)
    ear = rtc.Room()
    heard: asyncio.Queue[rtc.Track] = asyncio.Queue()
    ear.on("track_subscribed", lambda track, *_: heard.put_nowait(track))
    await ear.connect(server.url, server.token("ear", "hall", hidden=True))
    try:
        async with (
            asyncio.timeout(30),
            participant(server, "ann", "hall") as ann,
            participant(server, "ben", "hall") as ben,
        ):
            room = RoomStats(ear)
            for person in (ann, ben):
                await person.publish(speech_wav())
            tracks = [await heard.get(), await heard.get()]
            # WebRTC holds audio back by something, and never by nothing
            buffers = [room.follow(track) for track in tracks]
            await enough.wait()
            for track, buffer in zip(tracks, buffers, strict=True):
                assert buffer.behind_s > JitterBuffer().behind_s
                assert questions.count(track.sid) <= 2, "the second time before its first packet had come"
                room.forget(buffer)
    finally:
        await ear.disconnect()
