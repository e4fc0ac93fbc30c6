"""What another agent's session says on the wire, and which agents there are."""

from typing import Any, cast

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from livekit import rtc
from livekit.protocol.agent_pb import agent_session as wire

from relay.capture.observe.remote_session import is_agent, is_called, observed
from relay.speech.observations import StateChanged, Transcribed, TurnEnded

AGENT, STANDARD = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT, rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
Event = wire.AgentSessionEvent


def added(message: wire.ChatMessage) -> wire.AgentSessionEvent:
    item = wire.ChatContext.ChatItem(message=message)
    return Event(conversation_item_added=Event.ConversationItemAdded(item=item))


def said(text: str) -> list[wire.ChatMessage.ChatContent]:
    return [wire.ChatMessage.ChatContent(text=text)]


def test_the_users_state() -> None:
    change = Event.UserStateChanged(old_state=wire.US_LISTENING, new_state=wire.US_SPEAKING)
    assert observed(Event(user_state_changed=change)) == StateChanged("listening", "speaking")
    away = Event.UserStateChanged(old_state=wire.US_LISTENING, new_state=wire.US_AWAY)
    assert observed(Event(user_state_changed=away)) == StateChanged("listening", "away")


def test_a_transcript() -> None:
    heard = Event.UserInputTranscribed(transcript="so it goes", is_final=True)
    assert observed(Event(user_input_transcribed=heard)) == Transcribed("so it goes", final=True)


def test_a_turn_with_the_sessions_own_times() -> None:
    metrics = wire.MetricsReport(started_speaking_at=Timestamp(seconds=1795261968), end_of_turn_delay=0.5789)
    message = wire.ChatMessage(role=wire.USER, content=said("so"), transcript_confidence=0.9, metrics=metrics)
    turn = observed(added(message))
    assert isinstance(turn, TurnEnded)
    assert (turn.text, turn.started_speaking_at, turn.stopped_speaking_at) == ("so", 1795261968000, None)
    assert turn.end_of_turn_delay_ms == 579
    assert turn.confidence == pytest.approx(0.9)


def test_a_confidence_of_nothing_is_none() -> None:
    turn = observed(added(wire.ChatMessage(role=wire.USER, content=said("so"), transcript_confidence=0)))
    assert turn == TurnEnded("so")


@pytest.mark.parametrize(
    "event",
    [
        added(wire.ChatMessage(role=wire.USER, content=said("typed"))),
        added(wire.ChatMessage(role=wire.ASSISTANT, content=said("an answer"))),
        added(wire.ChatMessage()),
        Event(agent_state_changed=Event.AgentStateChanged(old_state=wire.AS_IDLE, new_state=wire.AS_SPEAKING)),
        Event(user_state_changed=Event.UserStateChanged(old_state=cast("Any", 99), new_state=wire.US_SPEAKING)),
        Event(),
    ],
    ids=["typed", "the agent's own", "no role", "the agent's state", "an unknown state", "nothing"],
)
def test_what_is_not_about_the_users_speech_says_nothing(event: wire.AgentSessionEvent) -> None:
    assert observed(event) is None


def test_an_agent_has_a_session_once_it_says_its_state() -> None:
    assert is_agent(AGENT, {"lk.agent.state": "listening"})
    assert not is_agent(AGENT, {})
    assert not is_agent(STANDARD, {"lk.agent.state": "listening"})


def test_an_agent_is_called_by_its_name_or_identity() -> None:
    assert is_called("reception*", "agent-AJ_1", {"lk.agent.name": "receptionist"})
    assert is_called("receptionist", "agent-AJ_1", {"lk.agent_name": "receptionist"})
    assert is_called("agent-*", "agent-AJ_1", {"lk.agent.name": ""})
    assert not is_called("agent-*", "frontdesk", {"lk.agent.name": "receptionist"})
