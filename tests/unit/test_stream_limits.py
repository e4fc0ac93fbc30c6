"""How many tracks of a participant and of a room are listened to at once."""

from livekit import rtc

from relay.capture.livekit.stream_limits import Key, LimitReports, Limits, Places
from relay.events.operator import CaptureLimit


def key(identity: str, number: int) -> Key:
    return identity, f"PA_{identity}", f"TR_{number}"


def places(*, each: int = 2, room: int = 100) -> Places:
    return Places(Limits(tracks_per_participant=each, streams_per_room=room))


def test_a_participants_third_track_waits_until_one_of_the_two_ends() -> None:
    taken = places()
    assert [taken.take(key("alice", n)) for n in range(3)] == [None, None, "max_tracks_per_participant"]
    assert taken.take(key("bob", 0)) is None
    assert taken.release(key("alice", 0))
    assert taken.take(key("alice", 2)) is None


def test_a_track_that_is_asked_for_twice_takes_one_place() -> None:
    taken = places()
    assert [taken.take(key("alice", 0)) for _ in range(5)] == [None] * 5
    assert taken.take(key("alice", 1)) is None
    assert taken.release(key("alice", 0))
    assert not taken.release(key("alice", 0))
    assert taken.take(key("alice", 2)) is None


def test_a_full_room_takes_nobodys_track() -> None:
    taken = places(room=3)
    assert [taken.take(key(identity, 0)) for identity in "abcd"] == [None, None, None, "max_streams_per_room"]


def test_who_joins_again_and_again_under_one_identity_has_one_participants_places() -> None:
    taken = places()
    keys = [("alice", f"PA_{n}", f"TR_{n}") for n in range(3)]
    assert [taken.take(one) for one in keys] == [None, None, "max_tracks_per_participant"]


def test_another_microphone_need_not_wait_for_the_stream_of_the_former_one() -> None:
    taken = places(each=1)
    taken.take(key("alice", 0))
    taken.release(key("alice", 0))
    taken.closing(key("alice", 0))
    assert taken.take(key("alice", 1)) is None


def test_tracks_that_come_and_go_in_a_loop_pile_up_to_twice_the_limit_only() -> None:
    taken = places(each=2)
    for n in range(4):
        assert taken.take(key("alice", n)) is None
        taken.release(key("alice", n))
        taken.closing(key("alice", n))
    assert taken.take(key("alice", 4)) == "max_tracks_per_participant"
    taken.closed(key("alice", 0))
    assert taken.take(key("alice", 4)) is None


async def test_a_limit_is_reported_once_for_each_participant_and_once_for_the_room() -> None:
    reported: list[tuple[CaptureLimit, int, str | None]] = []
    limits = Limits(tracks_per_participant=2, streams_per_room=100)
    report = LimitReports(rtc.Room(), limits, lambda *limit: reported.append(limit))
    for which in (key("alice", 2), key("alice", 3), key("bob", 2)):
        report("max_tracks_per_participant", which)
    for which in (key("alice", 2), key("bob", 2)):
        report("max_streams_per_room", which)
    assert reported == [
        ("max_tracks_per_participant", 2, "PA_alice"),
        ("max_tracks_per_participant", 2, "PA_bob"),
        ("max_streams_per_room", 100, None),
    ]
