"""Finds another agent in the room, receives its session's reports within limits, and makes observations of them.

The messages are those of ``livekit.agents.voice.RemoteSession`` (protocol ``agent_session``). They carry the user's
state, transcripts without words, times or speaker, and the conversation; no audio clock, so no media times.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from google.protobuf.timestamp_pb2 import Timestamp
from livekit import rtc
from livekit.agents.types import ATTRIBUTE_AGENT_NAME, ATTRIBUTE_AGENT_STATE
from livekit.protocol.agent_pb import agent_session as wire

from relay.capture.livekit.participants import LEFT_ON_PURPOSE, ROOM_CLOSED, Linked, accepts
from relay.capture.livekit.plan import WORKER_ATTRIBUTE
from relay.events.detectors import UserState
from relay.events.stream import StreamEnd
from relay.speech.observations import Observation, StateChanged, Transcribed, TurnEnded

SERVERS_AGENT_NAME = "lk.agent_name"
"""The server's attribute for the name that an agent was dispatched by; current agents set one themselves too."""

MOST_NAMED = 8
"""Agents that one line of the log names."""

_STATES: Mapping[int, UserState] = {
    wire.US_SPEAKING: "speaking",
    wire.US_LISTENING: "listening",
    wire.US_AWAY: "away",
}


def is_agent(kind: int, attributes: Mapping[str, str]) -> bool:
    """Whether this participant is an agent whose session has started."""
    return kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT and ATTRIBUTE_AGENT_STATE in attributes


def is_called(glob: str, identity: str, attributes: Mapping[str, str]) -> bool:
    """Whether ``glob`` matches this agent's dispatch name or identity."""
    names = (attributes.get(ATTRIBUTE_AGENT_NAME), attributes.get(SERVERS_AGENT_NAME), identity)
    return any(fnmatchcase(name, glob) for name in names if name)


def agents(room: rtc.Room) -> list[rtc.RemoteParticipant]:
    """The agents in the room, without those of a relay."""
    present = list(room.remote_participants.values())
    return [one for one in present if is_agent(one.kind, one.attributes) and WORKER_ATTRIBUTE not in one.attributes]


def wanted_agent(room: rtc.Room, glob: str) -> rtc.RemoteParticipant | None:
    """The agent that ``glob`` matches, the first to join where there are several."""
    found = [agent for agent in agents(room) if is_called(glob, agent.identity, agent.attributes)]
    return min(found, key=lambda agent: (agent.joined_at is None, agent.joined_at), default=None)


def names_of(agents: Sequence[rtc.RemoteParticipant]) -> str:
    """The names that these agents were dispatched by, for the log; ``""`` where there are none."""
    called = [
        agent.attributes.get(ATTRIBUTE_AGENT_NAME) or agent.attributes.get(SERVERS_AGENT_NAME) for agent in agents
    ]
    return ", ".join(sorted({name or "one without a name" for name in called})[:MOST_NAMED])


def why_agent_gone(agent: rtc.RemoteParticipant, room: rtc.Room) -> StreamEnd | None:
    """Why the agent is gone; None while it is there."""
    present = room.remote_participants.get(agent.identity)
    if present is not None and present.sid == agent.sid:
        return None
    if agent.disconnect_reason in ROOM_CLOSED:
        return "room_ended"
    return "shutdown" if agent.disconnect_reason in LEFT_ON_PURPOSE else "worker_lost"


def candidates(room: rtc.Room, kinds: Collection[str]) -> list[Linked]:
    """The participants of these kinds that a session may listen to, with the microphone it would use (as
    ``livekit.agents`` room input)."""
    return [
        Linked(participant, publication)
        for participant in list(room.remote_participants.values())
        if accepts(kinds, participant.kind)
        for publication in list(participant.track_publications.values())
        if publication.source == rtc.TrackSource.SOURCE_MICROPHONE
    ]


def only_one(candidates: Sequence[Linked]) -> Linked | None:
    """The candidate, where all are of one participant."""
    return candidates[0] if len({link.participant.identity for link in candidates}) == 1 else None


def observed(event: wire.AgentSessionEvent) -> Observation | None:
    """The event's report about the user; None where it has none to relay.

    Typed turns are left out: they are not speech.
    """
    match event.WhichOneof("event"):
        case "user_state_changed":
            change = event.user_state_changed
            old, new = _STATES.get(change.old_state), _STATES.get(change.new_state)
            return None if old is None or new is None else StateChanged(old, new)
        case "user_input_transcribed":
            said = event.user_input_transcribed
            return Transcribed(said.transcript, final=said.is_final, language=said.language or None)
        case "conversation_item_added":
            item = event.conversation_item_added.item
            return _turn(item.message) if item.HasField("message") else None
        case _:
            return None


def _turn(message: wire.ChatMessage) -> TurnEnded | None:
    if message.role != wire.USER or not message.HasField("transcript_confidence"):
        return None
    metrics = message.metrics
    return TurnEnded(
        text="\n".join(part.text for part in message.content if part.HasField("text")),
        confidence=message.transcript_confidence or None,  # 0.0 is a provider that gives none
        started_speaking_at=_wall(metrics.started_speaking_at) if metrics.HasField("started_speaking_at") else None,
        stopped_speaking_at=_wall(metrics.stopped_speaking_at) if metrics.HasField("stopped_speaking_at") else None,
        transcription_delay_ms=_ms(metrics.transcription_delay) if metrics.HasField("transcription_delay") else None,
        end_of_turn_delay_ms=_ms(metrics.end_of_turn_delay) if metrics.HasField("end_of_turn_delay") else None,
    )


def _wall(instant: Timestamp) -> int:
    return int(instant.ToMilliseconds())


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


MOST_OPEN = 16
"""Concurrent streams per sender. One more ends the reading of the oldest."""

OnByteStream = Callable[[rtc.ByteStreamReader, str], None]


class Readings:
    """Reads the data streams that participants open concurrently, a bounded number per sender.

    An SDK reader that is neither read to its end nor closed keeps all data that its sender sends, and processes each
    event of the process, for as long as the process lives.
    """

    def __init__(self) -> None:
        self._of: dict[str, list[asyncio.Task[None]]] = {}

    def add(self, reader: rtc.TextStreamReader, sender: str, read: Coroutine[Any, Any, None]) -> None:
        """Run ``read``, and close the stream when it ends, however it ends."""
        theirs = self._of.setdefault(sender, [])
        if len(theirs) >= MOST_OPEN:
            theirs.pop(0).cancel()
        task = asyncio.create_task(read)
        theirs.append(task)

        def over(_: asyncio.Task[None]) -> None:
            reader.close()
            if task in theirs:
                theirs.remove(task)
            if not theirs and self._of.get(sender) is theirs:
                del self._of[sender]

        task.add_done_callback(over)

    def cancel(self) -> None:
        """Stop reading: a stream that its sender leaves open must not block leaving the room."""
        for theirs in self._of.values():
            for task in theirs:
                task.cancel()


def with_byte_streams_of(room: rtc.Room, identity: str) -> rtc.Room:
    """The room, with other participants' byte streams closed before a handler sees them.

    Only streams of ``identity`` pass. ``RemoteSession`` ignores the others and leaves them open.
    """
    return cast("rtc.Room", _OnlyFrom(room, identity))


class _OnlyFrom:
    def __init__(self, room: rtc.Room, identity: str) -> None:
        self._room, self._identity = room, identity

    def register_byte_stream_handler(self, topic: str, handler: OnByteStream) -> None:
        def chosen(reader: rtc.ByteStreamReader, sender: str) -> None:
            if sender == self._identity:
                handler(reader, sender)
            else:
                reader.close()

        self._room.register_byte_stream_handler(topic, chosen)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._room, name)
