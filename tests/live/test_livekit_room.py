"""Membership of a room on a real LiveKit server: every track is heard once, for as long as it is there."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Sequence
from types import SimpleNamespace

import pytest
from livekit import api, rtc

from relay.capture.livekit.access import Access
from relay.capture.livekit.participants import SOURCES
from relay.capture.livekit.room import RoomMembership
from relay.capture.livekit.subscriptions import WasHeard
from relay.clock import SystemClock
from tests.support.livekit.fake_listener import FakeListeners
from tests.support.livekit.livekit_server import API_KEY, API_SECRET, LiveKitServer, livekit_server
from tests.support.livekit.participant import participant, speech_wav

pytestmark = pytest.mark.live

KINDS = ("standard", "sip", "connector")


@contextlib.asynccontextmanager
async def relay_in(
    server: LiveKitServer,
    name: str,
    listeners: FakeListeners,
    *,
    kinds: Sequence[str] = KINDS,
    sources: Collection[str] = SOURCES,
    was_heard: WasHeard | None = None,
) -> AsyncIterator[tuple[rtc.Room, RoomMembership]]:
    """A hidden agent in the room, with a membership that is closed at the end."""
    room = rtc.Room()
    access = Access(server.url, API_KEY, API_SECRET).rooms_only()  # as a job has it
    membership = RoomMembership(room, listeners, kinds, SystemClock(), access, sources=sources, was_heard=was_heard)
    await room.connect(server.url, server.token("relay", name, hidden=True, kind="agent"), rtc.RoomOptions(False))
    membership.start()
    try:
        yield room, membership
    finally:
        await membership.close("shutdown")
        await room.disconnect()


async def test_two_who_speak_at_once_are_heard_apart_and_mute_is_told(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with (
        participant(server, "alice", "two") as alice,
        relay_in(server, "two", listeners) as (room, _),
        participant(server, "bob", "two") as bob,
    ):
        before = time.time_ns() // 1_000_000
        microphone, _ = await asyncio.gather(alice.publish(speech_wav()), bob.publish(speech_wav(), start_s=3))
        await listeners.until(lambda: sum(listener.samples > 16_000 for listener in listeners.opened) == 2)
        assert sorted(listener.who for listener in listeners.opened) == ["alice", "bob"], (
            "each participant must have a stream"
        )
        (heard,) = listeners.of("alice")
        assert heard.peak > 1000
        assert heard.track.sid == microphone.sid
        assert heard.track.participant.sid == alice.sid
        assert heard.track.participant.kind == "standard"
        assert heard.track.room.sid == await room.sid
        assert heard.track.room.name == "two"
        assert heard.track.source == "microphone"
        published, joined = heard.track.published_at, heard.track.joined_at
        assert published is not None
        assert joined is not None
        assert before <= published <= heard.track.subscribed_at <= before + 2_000
        assert abs(joined - alice.when("join")) < 2_000

        alice.mute(microphone)
        await listeners.until(lambda: heard.mutes == [True])
        alice.unmute(microphone)
        await listeners.until(lambda: heard.mutes == [True, False])
        assert listeners.of("bob")[0].mutes == [], "a mute must reach the stream of the one who muted, and no other"
        await bob.leave()
        await listeners.until(lambda: listeners.of("bob")[0].end == "disconnected")
        assert heard.end is None
    assert heard.end == "shutdown"


async def test_a_track_that_was_asked_for_and_does_not_come_is_asked_for_again(
    server: LiveKitServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("relay.capture.livekit.subscriptions.ASK_AGAIN_S", (0.5,))
    ask = rtc.RemoteTrackPublication.set_subscribed
    lost: list[str] = []

    def lose_the_first(publication: rtc.RemoteTrackPublication, subscribed: bool) -> None:
        if lost:
            ask(publication, subscribed)
        lost.append(publication.sid)

    monkeypatch.setattr(rtc.RemoteTrackPublication, "set_subscribed", lose_the_first)
    listeners = FakeListeners()
    async with (
        relay_in(server, "lost", listeners) as (_, membership),
        participant(server, "alice", "lost") as alice,
    ):
        microphone = await alice.publish(speech_wav())
        await listeners.until(lambda: len(listeners.of("alice")) == 1 and listeners.of("alice")[0].samples > 16_000)
        said = f"Track {microphone.sid} was published and has not come"
        assert sum(said in record.message for record in caplog.records) == 1
        assert len(lost) >= 3, "the first request, which was lost, then off and on again"
        assert membership._asking._awaited == {}, "it is not asked for again once it has come"


async def test_unpublishing_ends_and_republishing_begins_again(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with relay_in(server, "republish", listeners), participant(server, "alice", "republish") as alice:
        microphone = await alice.publish(speech_wav())
        await listeners.until(lambda: len(listeners.opened) == 1 and listeners.opened[0].samples > 0)
        await alice.unpublish(microphone)
        await listeners.until(lambda: listeners.opened[0].end == "unpublished")
        assert listeners.opened[0].audio_ended
        await alice.publish(speech_wav())
        await listeners.until(lambda: len(listeners.opened) == 2 and listeners.opened[1].samples > 0)
        first, second = (listener.track for listener in listeners.opened)
        assert first.sid != second.sid
        assert first.participant.sid == second.participant.sid


async def test_leaving_in_mid_word_ends_as_disconnected_and_a_rejoin_does_not_wait(
    server: LiveKitServer,
) -> None:
    listeners = FakeListeners(close_s=2.0)
    async with relay_in(server, "rejoin", listeners):
        async with participant(server, "alice", "rejoin") as alice:
            await alice.publish(speech_wav())
            await listeners.until(lambda: len(listeners.opened) == 1 and listeners.opened[0].samples > 8_000)
        async with participant(server, "alice", "rejoin") as alice:
            await alice.publish(speech_wav())
            await listeners.until(lambda: len(listeners.opened) == 2 and listeners.opened[1].samples > 0)
            assert listeners.opened[0].end is None, "the first is still closing"
            await listeners.until(lambda: listeners.opened[0].end == "disconnected")
            assert listeners.opened[0].track.participant.sid != alice.sid == listeners.opened[1].track.participant.sid


async def test_a_second_join_of_the_same_identity_takes_over(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with relay_in(server, "takeover", listeners), participant(server, "alice", "takeover") as first:
        await first.publish(speech_wav())
        await listeners.until(lambda: len(listeners.opened) == 1)
        async with participant(server, "alice", "takeover") as second:
            await second.publish(speech_wav())
            await listeners.until(lambda: len(listeners.opened) == 2 and listeners.opened[1].samples > 0)
            await listeners.until(lambda: listeners.opened[0].end == "disconnected")
            assert listeners.opened[1].end is None


async def test_a_room_that_is_deleted_ends_everything(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with (
        participant(server, "alice", "deleted") as alice,
        participant(server, "bob", "deleted") as bob,
        relay_in(server, "deleted", listeners),
    ):
        await asyncio.gather(alice.publish(speech_wav()), bob.publish(speech_wav()))
        await listeners.until(lambda: len(listeners.opened) == 2)
        async with server.api() as client:
            await client.room.delete_room(api.DeleteRoomRequest(room="deleted"))
        await listeners.until(lambda: [listener.end for listener in listeners.opened] == ["room_ended"] * 2)


async def test_a_job_that_is_told_to_end_before_it_is_told_why(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with (
        participant(server, "alice", "closed") as alice,
        relay_in(server, "closed", listeners) as (_, membership),
        server.api() as client,
    ):
        await alice.publish(speech_wav())
        await listeners.until(lambda: len(listeners.opened) == 1)
        closing = asyncio.create_task(membership.close("shutdown"))
        await asyncio.sleep(0)
        await client.room.delete_room(api.DeleteRoomRequest(room="closed"))
        await closing
    assert [listener.end for listener in listeners.opened] == ["room_ended"]


async def test_a_job_that_hears_only_from_one_participant_that_the_room_was_closed(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with (
        participant(server, "alice", "closed") as alice,
        relay_in(server, "closed", listeners) as (room, membership),
    ):
        await alice.publish(speech_wav())
        await listeners.until(lambda: len(listeners.opened) == 1)
        # a busy machine ends the job before LiveKit tells it of the others
        bob = SimpleNamespace(identity="bob", sid="PA_b", disconnect_reason=rtc.DisconnectReason.ROOM_DELETED)
        room.emit("participant_disconnected", bob)
        await membership.close("shutdown")
    assert [listener.end for listener in listeners.opened] == ["room_ended"]


async def test_what_was_there_before_is_heard_muted_or_not_and_agents_are_not(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with (
        participant(server, "alice", "before") as alice,
        participant(server, "robot", "before", kind="agent") as robot,
    ):
        microphone = await alice.publish(speech_wav())
        alice.mute(microphone)
        screen = await alice.publish(speech_wav(), source=rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO)
        await robot.publish(speech_wav())
        async with relay_in(server, "before", listeners) as (room, _):
            await listeners.until(lambda: len(listeners.opened) == 2)
            by_sid = {listener.track.sid: listener for listener in listeners.opened}
            assert by_sid[microphone.sid].track.muted
            assert by_sid[microphone.sid].track.published_at is None, "nobody here saw it"
            assert by_sid[screen.sid].track.source == "screen_share_audio"
            assert not by_sid[screen.sid].track.muted
            robots = room.remote_participants["robot"].track_publications.values()
            assert [publication.subscribed for publication in robots] == [False], (
                "an agent's audio is not even received"
            )
            alice.unmute(microphone)
            await listeners.until(lambda: by_sid[microphone.sid].mutes == [False])
    assert listeners.of("robot") == [], "agents must not be heard unless configured"


async def until_published(server: LiveKitServer, room: str, tracks: int) -> None:
    """Until the server announces so many tracks to a new participant."""
    async with asyncio.timeout(30), server.api() as client:
        while True:
            listed = await client.room.list_participants(api.ListParticipantsRequest(room=room))
            if sum(len(somebody.tracks) for somebody in listed.participants) >= tracks:
                return
            await asyncio.sleep(0.05)


async def test_what_was_missed_is_counted_from_the_join_unless_it_was_heard_before(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with participant(server, "alice", "late") as alice:
        new, old = [await alice.publish() for _ in range(2)]
        await until_published(server, "late", 2)

        async def was_heard(track_sid: str) -> bool:
            return track_sid == old.sid

        async with relay_in(server, "late", listeners, was_heard=was_heard):
            await listeners.until(lambda: len(listeners.opened) == 2)
    of = {listener.track.sid: listener.track for listener in listeners.opened}
    assert of[new.sid].published_at == of[new.sid].joined_at is not None
    assert of[old.sid].published_at is None


async def test_what_was_missed_of_a_track_that_goes_early_is_counted_from_its_publication(
    server: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def was_heard(_track_sid: str) -> bool:
        return False

    monkeypatch.setattr("relay.capture.livekit.room.UNPUBLISH_S", 30.0)  # so that it opens before it ends
    listeners = FakeListeners(refuse=1)
    async with (
        relay_in(server, "short", listeners, was_heard=was_heard),
        participant(server, "alice", "short") as alice,
    ):
        before = time.time_ns() // 1_000_000
        microphone = await alice.publish()
        await listeners.until(lambda: listeners.refused == 1)
        await alice.unpublish(microphone)
        await listeners.until(lambda: len(listeners.opened) == 1)
    published = listeners.opened[0].track.published_at
    assert published is not None
    assert published >= before


async def test_who_says_that_she_publishes_for_an_agent_is_heard_all_the_same(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with (
        participant(server, "alice", "behalf") as alice,
        participant(server, "robot", "behalf", kind="agent"),
        server.api() as client,
        relay_in(server, "behalf", listeners),
    ):
        attributes = {"lk.publish_on_behalf": "robot"}
        await client.room.update_participant(
            api.UpdateParticipantRequest(room="behalf", identity="alice", attributes=attributes)
        )
        await alice.publish(speech_wav())
        await listeners.until(lambda: bool(listeners.of("alice")))
    assert listeners.of("alice")[0].track.participant.attributes == attributes


async def test_a_shared_tab_is_left_out_where_the_configuration_says_so(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with participant(server, "alice", "shared") as alice:
        before = await alice.publish(speech_wav(), source=rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO)
        async with relay_in(server, "shared", listeners, sources=["microphone"]) as (room, _):
            after = await alice.publish(speech_wav(), source=rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO)
            microphone = await alice.publish(speech_wav())
            await listeners.until(lambda: len(listeners.opened) == 1)
            publications = room.remote_participants["alice"].track_publications
            subscribed = {sid: publication.subscribed for sid, publication in publications.items()}
            assert subscribed == {before.sid: False, after.sid: False, microphone.sid: True}, (
                "a source that the configuration leaves out must not be subscribed to"
            )
    assert [listener.track.sid for listener in listeners.opened] == [microphone.sid]


async def test_agents_are_heard_where_the_configuration_names_them(server: LiveKitServer) -> None:
    listeners = FakeListeners()
    async with (
        relay_in(server, "robots", listeners, kinds=("agent",)),
        participant(server, "robot", "robots", kind="agent") as robot,
        participant(server, "alice", "robots") as alice,
    ):
        await asyncio.gather(alice.publish(speech_wav()), robot.publish(speech_wav()))
        await listeners.until(lambda: bool(listeners.of("robot")) and listeners.of("robot")[0].samples > 0)
        assert listeners.of("alice") == []
        assert listeners.of("robot")[0].track.participant.kind == "agent"


async def test_a_track_that_another_process_holds_or_that_is_lost_is_asked_for_again(server: LiveKitServer) -> None:
    listeners = FakeListeners(refuse=2)
    async with relay_in(server, "held", listeners), participant(server, "alice", "held") as alice:
        await alice.publish(speech_wav())
        await listeners.until(lambda: len(listeners.opened) == 1 and listeners.opened[0].samples > 0)
        assert listeners.refused == 2
        listeners.opened[0].losing.set()
        await listeners.until(lambda: len(listeners.opened) == 2 and listeners.opened[1].samples > 0)
        assert listeners.opened[0].end == "worker_lost"
        published = [listener.track.published_at for listener in listeners.opened]
        assert [moment is None for moment in published] == [False, True], "what was heard is not missed"


async def test_closing_is_side_by_side_and_bounded(server: LiveKitServer) -> None:
    listeners = FakeListeners(close_together=2)
    async with (
        relay_in(server, "closing", listeners) as (_, membership),
        participant(server, "alice", "closing") as alice,
        participant(server, "bob", "closing") as bob,
    ):
        await asyncio.gather(alice.publish(speech_wav()), bob.publish(speech_wav()))
        await listeners.until(lambda: len(listeners.opened) == 2)
        await membership.close("shutdown")
        assert [listener.end for listener in listeners.opened] == ["shutdown"] * 2, "neither waits for the other"


async def test_a_listener_that_hangs_is_given_up(server: LiveKitServer) -> None:
    listeners = FakeListeners(close_s=60.0)
    async with (
        relay_in(server, "hanging", listeners) as (_, membership),
        participant(server, "alice", "hanging") as alice,
    ):
        await alice.publish(speech_wav())
        await listeners.until(lambda: len(listeners.opened) == 1)
        began = time.monotonic()
        await membership.close("shutdown", within=0.3)
        assert time.monotonic() - began < 30, "it would take 60 s to close"


async def test_a_server_that_was_killed_and_is_back_is_heard_again() -> None:
    listeners = FakeListeners()
    async with (
        livekit_server() as server,
        relay_in(server, "crash", listeners),
        participant(server, "alice", "crash") as alice,
        participant(server, "bob", "crash") as bob,
    ):
        await asyncio.gather(alice.publish(speech_wav(), loop=True), bob.publish(speech_wav(), loop=True))
        await listeners.until(lambda: len(listeners.opened) == 2)
        await server.kill()
        await server.start()
        await listeners.until(
            lambda: (
                {each.who for each in listeners.opened if each.end is None and each.samples > 0} == {"alice", "bob"}
                and [each.end for each in listeners.opened[:2]] == ["disconnected"] * 2
            ),
            within=20,
        )
        async with server.api() as client:
            (there,) = (await client.room.list_rooms(api.ListRoomsRequest(names=["crash"]))).rooms
        before, after = {each.track.room.sid for each in listeners.opened[:2]}, listeners.opened[2:]
        assert {each.track.room.sid for each in after} == {there.sid}, "also where rtc does not know it yet"
        assert there.sid not in before
