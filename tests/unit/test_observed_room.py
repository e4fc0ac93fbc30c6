"""Whose speech another agent's session tells of: in rooms of one, of several, and with several agents."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.protocol.agent_pb import agent_session as wire

from relay.capture.observe import room as observed_room
from relay.capture.observe.recording import ObservedTrack
from relay.capture.observe.remote_session import MOST_OPEN
from relay.capture.observe.room import ObservedRoom
from relay.clock import SystemClock
from relay.events.stream import StreamEnd
from relay.speech.observations import Ended, Listening, Muted, Observation, StateChanged, Transcribed
from tests.support.outbox.outbox_store import until

AGENT, STANDARD = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT, rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
Event = wire.AgentSessionEvent


class Chunks:
    """A data stream that has arrived."""

    def __init__(self, data: bytes | str) -> None:
        self._data = iter([data])
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def __aiter__(self) -> "Chunks":
        return self

    async def __anext__(self) -> bytes | str:
        for data in self._data:
            return data
        raise StopAsyncIteration


class Transcript(Chunks):
    """A text stream on ``lk.transcription`` that has arrived."""

    def __init__(self, text: str, track_sid: str) -> None:
        super().__init__(text)
        self.info = SimpleNamespace(attributes={"lk.transcribed_track_id": track_sid})


class OpenTranscript(Transcript):
    """One that its sender leaves open."""

    async def __anext__(self) -> bytes | str:
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            await asyncio.Event().wait()
            raise


class Room(rtc.EventEmitter[Any]):
    """What the relay sees of a room."""

    name = "support"

    def __init__(self) -> None:
        super().__init__()
        self.remote_participants: dict[str, Any] = {}
        self.session: Callable[[Any, str], None] | None = None
        self.transcripts: Callable[[Any, str], None] | None = None
        self.is_called = "RM_1"
        self._sids: Iterator[int] = iter(range(1, 1000))

    @property
    async def sid(self) -> str:
        return self.is_called

    def register_byte_stream_handler(self, topic: str, handler: Callable[[Any, str], None]) -> None:
        assert topic == "lk.agent.session"
        self.session = handler

    def unregister_byte_stream_handler(self, topic: str) -> None:
        self.session = None

    def register_text_stream_handler(self, topic: str, handler: Callable[[Any, str], None]) -> None:
        assert topic == "lk.transcription"
        self.transcripts = handler

    def join(self, identity: str, *, agent: str | None = None) -> None:
        """A person with a microphone, or an agent with a session and this name."""
        number = next(self._sids)
        microphone = SimpleNamespace(sid=f"TR_{number}", source=rtc.TrackSource.SOURCE_MICROPHONE, muted=False)
        self.remote_participants[identity] = SimpleNamespace(
            sid=f"PA_{number}",
            identity=identity,
            name=identity,
            kind=STANDARD if agent is None else AGENT,
            attributes={} if agent is None else {"lk.agent.name": agent, "lk.agent.state": "listening"},
            track_publications={} if agent is not None else {microphone.sid: microphone},
            joined_at=datetime.fromtimestamp(number),  # noqa: DTZ006 - LiveKit's are aware; only their order counts here
            disconnect_reason=None,
        )
        self.emit("participant_connected", self.remote_participants[identity])

    def leave(self, identity: str, reason: int = rtc.DisconnectReason.CLIENT_INITIATED) -> None:
        participant = self.remote_participants.pop(identity)
        participant.disconnect_reason = reason
        self.emit("participant_disconnected", participant)

    async def say(self, agent: str, event: wire.AgentSessionEvent) -> None:
        await until(lambda: self.session is not None)
        assert self.session is not None
        self.session(Chunks(wire.AgentSessionMessage(event=event).SerializeToString()), agent)

    def transcribe(self, identity: str, text: str, *, track_of: str | None = None) -> None:
        """A transcript under this name, of the microphone of ``track_of``: their own where none is given."""
        assert self.transcripts is not None
        (track_sid,) = self.remote_participants[track_of or identity].track_publications
        self.transcripts(Transcript(text, track_sid), identity)


class Told:
    """What was told of one track."""

    stream_id = "str_told"

    def __init__(self, track: ObservedTrack) -> None:
        self.room_sid = track.room.sid
        self.identity = track.participant.identity
        self.observations: list[Observation] = []

    def observe(self, observation: Observation) -> None:
        self.observations.append(observation)

    async def lost(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass

    @property
    def said(self) -> list[Observation]:
        return [one for one in self.observations if isinstance(one, StateChanged | Transcribed)]

    @property
    def end(self) -> StreamEnd | None:
        last = self.observations[-1] if self.observations else None
        return last.reason if isinstance(last, Ended) else None


@asynccontextmanager
async def observing(room: Room, *, patience_s: float = 60.0) -> AsyncIterator[list[Told]]:
    told: list[Told] = []

    async def open_record(track: ObservedTrack) -> Told:
        told.append(Told(track))
        return told[-1]

    observed = ObservedRoom(
        cast("rtc.Room", room),
        open_record,
        agent="receptionist",
        kinds=["standard"],
        clock=SystemClock(),
        patience_s=patience_s,
    )
    await observed.start()
    try:
        yield told
    finally:
        await observed.close("shutdown")


@asynccontextmanager
async def two_and_an_agent() -> AsyncIterator[tuple[Room, list[Told]]]:
    room = Room()
    for identity in ("alice", "bob"):
        room.join(identity)
    room.join("agent-1", agent="receptionist")
    async with observing(room) as told:
        await until(lambda: room.session is not None)
        await settled()
        yield room, told


async def settled() -> None:
    """Let what has arrived be read: nothing of it waits for more than the loop's next turns."""
    for _ in range(20):
        await asyncio.sleep(0)


def speaking() -> wire.AgentSessionEvent:
    change = Event.UserStateChanged(old_state=wire.US_LISTENING, new_state=wire.US_SPEAKING)
    return Event(user_state_changed=change)


def final(text: str) -> wire.AgentSessionEvent:
    return Event(user_input_transcribed=Event.UserInputTranscribed(transcript=text, is_final=True))


async def test_the_only_one_there_is_the_one_even_after_another_has_come() -> None:
    room = Room()
    room.join("alice")
    room.join("agent-1", agent="receptionist")
    async with observing(room) as told:
        await room.say("agent-1", speaking())
        await until(lambda: bool(told) and len(told[0].said) == 1)
        room.join("bob")
        await room.say("agent-1", final("so"))
        await until(lambda: len(told[0].said) == 2)
    assert [(one.identity, one.end) for one in told] == [("alice", "shutdown")]
    assert isinstance(told[0].observations[0], Listening)


@pytest.mark.parametrize(
    ("agents", "level", "said"),
    [
        ({"agent-1": "recepcionist", "agent-2": ""}, "WARNING", "Agents here: one without a name, recepcionist"),
        ({}, "INFO", "No other agent has a session here"),
    ],
)
async def test_a_room_without_the_agent_says_which_agents_are_there(
    agents: dict[str, str], level: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    room = Room()
    room.join("alice")
    for identity, name in agents.items():
        room.join(identity, agent=name)
    async with observing(room, patience_s=0.01):
        await until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert record.levelname == level
    assert record.getMessage().startswith("No agent that capture.observe.agent (receptionist) names is here")
    assert record.getMessage().endswith(said)
    assert "agent-1" not in record.getMessage()


async def test_a_session_that_cannot_be_observed_at_once_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(observed_room, "RETRY_S", 0.01)
    room, register = Room(), Room.register_byte_stream_handler
    tries = iter((ValueError("what alice said"), None))

    def refused_once(self: Room, topic: str, handler: Callable[[Any, str], None]) -> None:
        if (error := next(tries)) is not None:
            raise error
        register(self, topic, handler)

    monkeypatch.setattr(Room, "register_byte_stream_handler", refused_once)
    room.join("alice")
    room.join("agent-1", agent="receptionist")
    async with observing(room) as told:
        await room.say("agent-1", speaking())
        await until(lambda: bool(told) and len(told[0].said) == 1)
    assert "An agent's session cannot be observed; trying again: ValueError at test_observed_room.py:" in caplog.text
    assert "what alice said" not in caplog.text


async def test_a_room_with_the_agent_has_nothing_to_say_of_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    room = Room()
    room.join("agent-1", agent="receptionist")
    room.join("agent-2", agent="waiter")
    async with observing(room, patience_s=0.0):
        await until(lambda: room.session is not None)
        await asyncio.sleep(0.01)  # the timer is due by now
    assert not [record for record in caplog.records if "capture.observe.agent" in record.getMessage()]


async def test_of_several_nobody_is_until_the_agent_has_transcribed_one() -> None:
    room = Room()
    for identity in ("alice", "bob"):
        room.join(identity)
    room.join("agent-1", agent="receptionist")
    async with observing(room) as told:
        await room.say("agent-1", speaking())
        await room.say("agent-1", final("whose"))
        await settled()
        assert told == []
        room.transcribe("bob", "so")
        await room.say("agent-1", final("so"))
        await until(lambda: bool(told) and bool(told[0].said))
        room.transcribe("alice", "it goes")
        await room.say("agent-1", final("it goes"))
        await until(lambda: len(told) == 2 and bool(told[1].said))
    assert [(one.identity, one.said) for one in told] == [
        ("bob", [Transcribed("so", final=True)]),
        ("alice", [Transcribed("it goes", final=True)]),
    ]
    assert told[0].end == "shutdown"


async def test_a_transcript_of_what_the_session_never_said_attributes_nothing() -> None:
    async with two_and_an_agent() as (room, told):
        room.transcribe("bob", "give me her account")
        await settled()
        await room.say("agent-1", final("so"))
        room.transcribe("alice", "so")
        await room.say("agent-1", final("it goes"))
        await until(lambda: bool(told) and len(told[0].said) == 2)
    assert [(one.identity, one.said) for one in told] == [
        ("alice", [Transcribed("so", final=True), Transcribed("it goes", final=True)])
    ]


async def test_a_transcript_of_somebody_elses_microphone_attributes_nothing() -> None:
    async with two_and_an_agent() as (room, told):
        room.transcribe("bob", "so", track_of="alice")
        await settled()
        await room.say("agent-1", final("so"))
        room.transcribe("alice", "so")
        await until(lambda: bool(told) and bool(told[0].said))
    assert [one.identity for one in told] == ["alice"]


async def test_an_echo_of_the_agents_transcript_changes_nothing() -> None:
    async with two_and_an_agent() as (room, told):
        for text in ("so", "it goes", "on"):
            await room.say("agent-1", final(text))
            await settled()
            room.transcribe("alice", text)
            room.transcribe("bob", text)
        await until(lambda: bool(told) and len(told[0].said) == 3)
    assert [one.identity for one in told] == ["alice"]


async def test_a_text_that_two_claim_is_nobodys_until_one_is_claimed_alone() -> None:
    async with two_and_an_agent() as (room, told):
        room.transcribe("bob", "yes")
        room.transcribe("alice", "yes")
        await asyncio.sleep(0)
        await room.say("agent-1", final("yes"))
        await room.say("agent-1", final("I do"))
        room.transcribe("alice", "I do")
        await until(lambda: bool(told) and bool(told[0].said))
    assert [(one.identity, one.said) for one in told] == [("alice", [Transcribed("I do", final=True)])]


async def test_a_guess_ahead_of_the_agents_transcript_takes_no_words_over() -> None:
    async with two_and_an_agent() as (room, told):
        await room.say("agent-1", final("I do"))
        await settled()
        room.transcribe("alice", "I do")
        await until(lambda: bool(told) and bool(told[0].said))
        room.transcribe("bob", "yes")
        await asyncio.sleep(0)
        await room.say("agent-1", final("yes"))
        await settled()
        room.transcribe("alice", "yes")
        await until(lambda: told[0].end is not None)
    assert [(one.identity, one.said) for one in told] == [("alice", [Transcribed("I do", final=True)])]


async def test_a_transcript_too_long_to_be_one_is_read_and_dropped() -> None:
    async with two_and_an_agent() as (room, told):
        endless = "so " * 10_000
        room.transcribe("bob", endless)
        await room.say("agent-1", final(endless))
        await room.say("agent-1", final("I do"))
        room.transcribe("alice", "I do")
        await until(lambda: bool(told) and bool(told[0].said))
    assert [one.identity for one in told] == ["alice"]


async def test_streams_that_their_sender_leaves_open_are_bounded_and_do_not_keep_the_room() -> None:
    async with two_and_an_agent() as (room, _):
        assert room.transcripts is not None
        (bobs,) = room.remote_participants["bob"].track_publications
        streams = [OpenTranscript("words", bobs) for _ in range(100)]
        for stream in streams:
            room.transcripts(stream, "bob")
        await settled()
        assert [stream.closed for stream in streams] == [True] * (100 - MOST_OPEN) + [False] * MOST_OPEN
    await settled()
    assert all(stream.closed for stream in streams)


async def test_streams_of_one_sender_leave_room_for_those_of_another() -> None:
    async with two_and_an_agent() as (room, told):
        assert room.transcripts is not None
        (bobs,) = room.remote_participants["bob"].track_publications
        for _ in range(100):
            room.transcripts(OpenTranscript("words", bobs), "bob")
        await room.say("agent-1", final("hello"))
        room.transcribe("alice", "hello")
        await until(lambda: bool(told))
    assert [one.identity for one in told] == ["alice"]


async def test_a_session_stream_of_somebody_else_than_the_agent_is_closed() -> None:
    async with two_and_an_agent() as (room, _):
        assert room.session is not None
        stream = Chunks(b"")
        room.session(stream, "bob")
        assert stream.closed


async def test_beside_another_agent_a_transcript_says_nothing() -> None:
    room = Room()
    for identity in ("alice", "bob"):
        room.join(identity)
    room.join("agent-1", agent="receptionist")
    room.join("agent-2", agent="interpreter")
    async with observing(room) as told:
        await until(lambda: room.session is not None)
        room.transcribe("bob", "so")
        await room.say("agent-1", final("so"))
        await settled()
    assert told == []


async def test_another_agent_than_the_one_wanted_is_not_heard() -> None:
    room = Room()
    room.join("alice")
    room.join("agent-1", agent="receptionist")
    room.join("agent-2", agent="interpreter")
    async with observing(room) as told:
        await room.say("agent-2", final("no"))
        await room.say("agent-1", final("yes"))
        await until(lambda: bool(told) and bool(told[0].said))
    assert told[0].said == [Transcribed("yes", final=True)]


async def test_an_agent_that_dies_is_followed_by_the_next_one() -> None:
    room = Room()
    room.join("alice")
    room.join("agent-1", agent="receptionist")
    async with observing(room) as told:
        await until(lambda: bool(told) and bool(told[0].observations))
        room.leave("agent-1", rtc.DisconnectReason.CONNECTION_TIMEOUT)
        await until(lambda: told[0].end is not None and room.session is None)
        room.join("agent-2", agent="receptionist")
        await room.say("agent-2", final("so"))
        await until(lambda: len(told) == 2 and bool(told[1].said))
    assert [one.end for one in told] == ["worker_lost", "shutdown"]


async def test_after_the_server_was_restarted_it_is_another_room() -> None:
    room = Room()
    for identity, agent in (("alice", None), ("agent-1", "receptionist")):
        room.join(identity, agent=agent)
    async with observing(room) as told:
        await room.say("agent-1", speaking())
        await until(lambda: bool(told) and len(told[0].said) == 1)
        room.leave("agent-1", rtc.DisconnectReason.CONNECTION_TIMEOUT)
        await until(lambda: told[0].end is not None)
        room.is_called = "RM_2"
        room.join("agent-1", agent="receptionist")
        await room.say("agent-1", speaking())
        await until(lambda: len(told) == 2)
    assert [one.room_sid for one in told] == ["RM_1", "RM_2"]


async def test_one_who_leaves_is_told_of_as_gone_whatever_comes_next() -> None:
    room = Room()
    room.join("alice")
    room.join("agent-1", agent="receptionist")
    async with observing(room) as told:
        await room.say("agent-1", speaking())
        await until(lambda: bool(told) and len(told[0].said) == 1)
        room.leave("alice")
        await room.say("agent-1", final("bye"))
        await until(lambda: len(told[0].said) == 2)
    assert [one.end for one in told] == ["disconnected"]


async def test_one_who_is_back_at_once_after_a_reconnect_has_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed_room, "UNPUBLISH_S", 0.0)
    monkeypatch.setattr(observed_room, "SETTLE_S", 0.0)
    room = Room()
    room.join("alice")
    room.join("agent-1", agent="receptionist")
    async with observing(room) as told:
        await room.say("agent-1", speaking())
        await until(lambda: bool(told) and len(told[0].said) == 1)
        alice = room.remote_participants["alice"]
        room.leave("alice", rtc.DisconnectReason.UNKNOWN_REASON)
        room.remote_participants["alice"] = back = SimpleNamespace(**{**vars(alice), "disconnect_reason": None})
        room.emit("participant_connected", back)
        await settled()
        (microphone,) = back.track_publications.values()
        microphone.muted = True
        room.emit("track_muted")
        await room.say("agent-1", final("still here"))
        await until(lambda: len(told[0].said) == 2 or len(told) == 2)
    assert [one.end for one in told] == ["shutdown"]
    assert Muted() in told[0].observations
