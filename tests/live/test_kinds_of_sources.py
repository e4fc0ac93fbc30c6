"""Every way in which somebody can be heard in a room, through the service as an operator runs it."""

from pathlib import Path

import pytest
from livekit import api, rtc

from tests.support.audio.story import Stream, assert_whole, of, told
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import Service, service

pytestmark = pytest.mark.live

VAD_ONLY = "stt: {provider: none}"


async def heard(receiver: Receiver, identity: str, *, streams: int = 1, speaking: bool = True) -> None:
    """Until so many streams of somebody were told of, and speech on each of them."""
    wanted = "speech.started" if speaking else "stream.started"

    def there() -> bool:
        theirs = of(told(receiver.answered, SECRET), identity)
        return len(theirs) >= streams and all(wanted in stream.types() for stream in theirs)

    await receiver.wait_for(there, within=30)


async def ended(receiver: Receiver) -> list[Stream]:
    """The streams, once all of them have ended."""
    await receiver.wait_for(lambda: all(stream.end for stream in told(receiver.answered, SECRET)), within=30)
    streams = told(receiver.answered, SECRET)
    for stream in streams:
        assert_whole(stream)
        assert stream.duplicates == 0, "an event arrived twice"
    return streams


def story(streams: list[Stream]) -> list[tuple[str, str, str, str | None]]:
    """(identity, kind, track source, why it ended) of each stream."""
    return sorted(
        (
            stream.identity,
            stream.events[0].participant.kind,
            stream.events[0].stream.track_source,
            stream.end.data.reason if stream.end else None,
        )
        for stream in streams
    )


async def delete(server: LiveKitServer, room: str) -> None:
    async with server.api() as client:
        await client.room.delete_room(api.DeleteRoomRequest(room=room))


async def stopped(relay: Service) -> None:
    assert await relay.stop() == 0, relay.tail()


async def test_a_phone_a_shared_screen_other_tracks_another_device_and_the_rooms_end(
    server: LiveKitServer, tmp_path: Path
) -> None:
    async with receiving() as receiver, service(server, receiver.url, tmp_path, detectors=VAD_ONLY) as relay:
        await relay.start()
        async with (
            participant(server, "phone", "room", kind="sip") as phone,
            participant(server, "robot", "room", kind="agent") as robot,
            participant(server, "alice", "room") as alice,
            participant(server, "bob", "room") as bob,
            participant(server, "carol", "room") as carol,
        ):
            await robot.publish(speech_wav(), loop=True)
            await phone.publish(speech_wav(), loop=True)
            await heard(receiver, "phone")

            # alice speaks, and shares a film
            await alice.publish(speech_wav(), loop=True)
            await alice.publish(speech_wav("two_cities"), source=rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO)
            await heard(receiver, "alice", streams=2)

            # bob publishes another microphone beside the first, and only then takes that away
            headset = await bob.publish(speech_wav(), loop=True)
            await heard(receiver, "bob")
            await bob.publish(speech_wav(), loop=True)
            await heard(receiver, "bob", streams=2)
            await bob.unpublish(headset)

            # carol is there still when she comes from another device
            await carol.publish(speech_wav(), loop=True)
            await heard(receiver, "carol")
            async with participant(server, "carol", "room") as carol_again:
                await carol_again.publish(speech_wav(), loop=True)
                await heard(receiver, "carol", streams=2)
                await delete(server, "room")
                streams = await ended(receiver)
        await stopped(relay)

    assert story(streams) == [
        ("alice", "standard", "microphone", "room_ended"),
        ("alice", "standard", "screen_share_audio", "room_ended"),
        ("bob", "standard", "microphone", "room_ended"),
        ("bob", "standard", "microphone", "unpublished"),
        ("carol", "standard", "microphone", "disconnected"),
        ("carol", "standard", "microphone", "room_ended"),
        ("phone", "sip", "microphone", "room_ended"),
    ], "and not the robot"
    before, after = of(streams, "carol")
    assert before.events[0].participant.sid != after.events[0].participant.sid
    cut = [stream.ends[-1] for stream in streams if stream.end and stream.end.data.reason == "room_ended"]
    assert set(cut) <= {"silence", "room_ended"}
    assert "room_ended" in cut, "two_cities.wav never pauses for long"


async def test_a_room_of_the_same_name_is_another_room_and_kinds_are_left_out(
    server: LiveKitServer, tmp_path: Path
) -> None:
    only_phones = "participants: {kinds: [sip]}"
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors=VAD_ONLY, capture=only_phones) as relay,
    ):
        await relay.start()
        for times in (1, 2):
            async with (
                participant(server, "alice", "again") as alice,
                participant(server, "phone", "again", kind="sip") as phone,
            ):
                await alice.publish(speech_wav(), loop=True)
                await phone.publish(speech_wav(), loop=True)
                await heard(receiver, "phone", streams=times)
                await delete(server, "again")
                await ended(receiver)
        await stopped(relay)
        first, second = told(receiver.answered, SECRET)
    assert story([first, second]) == [("phone", "sip", "microphone", "room_ended")] * 2, (
        "each room of that name must have its own stream, of the phone alone"
    )
    assert first.events[0].room.sid != second.events[0].room.sid
