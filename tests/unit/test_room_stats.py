"""How long WebRTC holds the audio of a room's tracks back is asked for all of them at once."""

import asyncio

import pytest
from livekit import rtc

from relay.capture.livekit import stats
from relay.capture.livekit.stats import JitterBuffer, RoomStats


def inbound(identifier: str, held_s: float, emitted: int) -> rtc.stats.RtcStats:
    said = rtc.stats.RtcStats()
    said.inbound_rtp.inbound.track_identifier = identifier
    said.inbound_rtp.inbound.jitter_buffer_delay = held_s * emitted
    said.inbound_rtp.inbound.jitter_buffer_emitted_count = emitted
    return said


class Said:
    """WebRTC's answers for tracks by their names, and how many questions were open at a time."""

    def __init__(self) -> None:
        self.held_s: dict[str, float] = {}
        self.tracks: dict[rtc.Track, str] = {}
        self.emitted = 0
        self.asked: list[str] = []
        self.open = self.most_open = 0
        self.more = asyncio.Condition()

    async def of_track(self, track: rtc.Track) -> list[rtc.stats.RtcStats]:
        name = self.tracks[track]
        await self._answer(name)
        return [rtc.stats.RtcStats(), inbound(name, self.held_s[name], self.emitted)]

    async def of_room(self, room: rtc.Room) -> rtc.room.RtcStats:
        await self._answer("room")
        every = [inbound(name, held, self.emitted) for name, held in self.held_s.items()]
        return rtc.room.RtcStats(publisher_stats=every[:2], subscriber_stats=every[2:])

    async def _answer(self, question: str) -> None:
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        await asyncio.sleep(0)
        self.emitted += 48_000
        self.open -= 1
        async with self.more:
            self.asked.append(question)
            self.more.notify_all()

    async def until(self, question: str, times: int) -> None:
        async with asyncio.timeout(30), self.more:
            await self.more.wait_for(lambda: self.asked.count(question) >= times)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    said = Said()
    monkeypatch.setattr(rtc.Track, "get_stats", lambda track: said.of_track(track))
    monkeypatch.setattr(rtc.Room, "get_rtc_stats", lambda room: said.of_room(room))
    monkeypatch.setattr(stats, "LOOK_EVERY_S", 0.001)
    return said


def tracks(said: Said, *names: str) -> list[rtc.Track]:
    made: list[rtc.Track] = []
    for name in names:
        track = rtc.LocalAudioTrack.create_audio_track(name, rtc.AudioSource(16_000, 1))
        said.tracks[track] = name
        said.held_s[name] = 0.0
        made.append(track)
    return made


async def test_each_track_is_asked_for_once_and_then_all_of_them_at_once(said: Said) -> None:
    names = ["ann", "ben", "cem", "dot"]
    room = RoomStats(rtc.Room())
    followed = dict(zip(names, map(room.follow, tracks(said, *names)), strict=True))
    coded = JitterBuffer().behind_s
    await said.until("room", 2)
    said.held_s.update(ann=0.1, ben=0.2, cem=0.3, dot=0.4)
    await said.until("room", said.asked.count("room") + 3)

    for name, buffer in followed.items():
        assert buffer.behind_s - coded == pytest.approx(said.held_s[name], abs=0.001)
        assert said.asked.count(name) == 1
        room.forget(buffer)
    assert said.most_open == 1


async def test_a_track_that_is_gone_from_the_room_s_answer_is_asked_for_again(said: Said) -> None:
    """After a reconnect WebRTC knows it by another name."""
    room = RoomStats(rtc.Room())
    (track,) = tracks(said, "before")
    buffer = room.follow(track)
    await said.until("room", 1)
    del said.held_s["before"]
    said.tracks[track], said.held_s["after"] = "after", 0.5
    await said.until("after", 1)
    await said.until("room", said.asked.count("room") + 2)

    assert buffer.behind_s - JitterBuffer().behind_s == pytest.approx(0.5, abs=0.001)
    room.forget(buffer)


async def test_what_nobody_follows_is_not_asked_for(said: Said) -> None:
    room = RoomStats(rtc.Room())
    first, second = map(room.follow, tracks(said, "first", "second"))
    await said.until("room", 1)
    room.forget(first)
    room.forget(first)
    del said.held_s["first"]
    await said.until("room", said.asked.count("room") + 3)
    assert said.asked.count("first") == 1
    room.forget(second)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "room_stats" and not task.cancelling()]

    again = room.follow(tracks(said, "third")[0])
    await said.until("third", 1)
    room.forget(again)


async def test_a_track_that_does_not_answer_keeps_nobody_from_being_looked_at(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "_ANSWER_S", 0.05)
    room = RoomStats(rtc.Room())
    dead, alive = tracks(said, "dead", "alive")

    async def answer(track: rtc.Track) -> list[rtc.stats.RtcStats]:
        if track is dead:
            await asyncio.Event().wait()
        return await said.of_track(track)

    monkeypatch.setattr(rtc.Track, "get_stats", answer)
    buffers = [room.follow(track) for track in (dead, alive)]
    said.held_s.update(dead=0.0, alive=0.5)
    await said.until("room", 3)
    assert said.asked.count("alive") == 1
    assert buffers[1].behind_s - JitterBuffer().behind_s == pytest.approx(0.5, abs=0.001)
    for buffer in buffers:
        room.forget(buffer)


async def test_a_room_that_hangs_is_asked_again(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_ANSWER_S", 0.05)
    room = RoomStats(rtc.Room())
    (track,) = tracks(said, "track")
    buffer = room.follow(track)
    await said.until("room", 1)
    hangs = iter([True])

    async def answer(room: rtc.Room) -> rtc.room.RtcStats:
        if next(hangs, False):
            await asyncio.Event().wait()
        return await said.of_room(room)

    monkeypatch.setattr(rtc.Room, "get_rtc_stats", answer)
    await said.until("room", said.asked.count("room") + 2)
    room.forget(buffer)


async def test_a_room_that_does_not_answer_is_asked_again(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    room = RoomStats(rtc.Room())
    (track,) = tracks(said, "track")
    buffer = room.follow(track)
    await said.until("room", 1)
    answers = iter([RuntimeError("the room isn't connected"), RuntimeError("the room isn't connected")])

    async def refused(room: rtc.Room) -> rtc.room.RtcStats:
        if (error := next(answers, None)) is not None:
            raise error
        return await said.of_room(room)

    monkeypatch.setattr(rtc.Room, "get_rtc_stats", refused)
    said.held_s["track"] = 0.25
    await said.until("room", said.asked.count("room") + 3)
    assert buffer.behind_s - JitterBuffer().behind_s == pytest.approx(0.25, abs=0.001)
    assert said.asked.count("track") == 1, "it is known still"
    room.forget(buffer)


async def test_a_track_that_webrtc_has_no_more_is_absent_until_it_is_back(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = rtc.ConnectionState.CONN_CONNECTED
    monkeypatch.setattr(rtc.Room, "connection_state", property(lambda _: state))

    async def answer(track: rtc.Track) -> list[rtc.stats.RtcStats]:
        name = said.tracks[track]
        return await said.of_track(track) if name in said.held_s else []

    monkeypatch.setattr(rtc.Track, "get_stats", answer)
    room = RoomStats(rtc.Room())
    there, withheld = map(room.follow, tracks(said, "there", "withheld"))
    await said.until("room", 2)
    assert (there.absent, withheld.absent) == (0, 0)
    held_s = said.held_s.pop("withheld")
    await said.until("room", said.asked.count("room") + 4)
    assert withheld.absent >= 2
    assert there.absent == 0

    state = rtc.ConnectionState.CONN_RECONNECTING
    await said.until("room", said.asked.count("room") + 2)
    assert withheld.absent == 0, "while the connection is re-established nothing is there"

    state = rtc.ConnectionState.CONN_CONNECTED
    said.held_s["withheld"] = held_s
    await said.until("room", said.asked.count("room") + 2)
    assert withheld.absent == 0
    for buffer in (there, withheld):
        room.forget(buffer)


async def test_a_receiver_is_for_the_newest_track_that_came_on_it(said: Said) -> None:
    room = RoomStats(rtc.Room())
    hers, his = tracks(said, "receiver", "receiver")
    former = room.follow(hers)
    await said.until("room", 2)
    assert not former.withheld
    newer = room.follow(his)
    await said.until("room", said.asked.count("room") + 4)
    assert (former.withheld, newer.withheld) == (True, False)
    again = room.follow(hers)  # her stream is opened again meanwhile
    await said.until("room", said.asked.count("room") + 4)
    assert (again.withheld, newer.withheld) == (True, False)
    room.forget(newer)
    assert not again.withheld, "it may be hers again"
    for buffer in (former, again):
        room.forget(buffer)
