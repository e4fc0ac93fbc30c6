"""Ends of turns as a session tells them: by the agent's hook, or as an item of the conversation while it closes."""

import pytest
from livekit.agents import ConversationItemAddedEvent, llm

from relay.capture.health.error_guard import ErrorGuard
from relay.capture.session.tap import SessionTap
from relay.speech.observations import TurnEnded


def told(*messages: llm.ChatMessage, realtime: bool = True) -> list[object]:
    """What is reported of messages that come both ways."""
    reported: list[object] = []
    tap = SessionTap(reported.append, on_closed=lambda _: None, realtime=realtime, guard=ErrorGuard())
    added = tap._handlers["conversation_item_added"]
    for message in messages:
        tap.on_turn(message)
        added(ConversationItemAddedEvent(item=message))
    return reported


def turn(role: llm.ChatRole = "user") -> llm.ChatMessage:
    message = llm.ChatMessage(role=role, content=["Ever tried."], transcript_confidence=0.9)
    message.metrics = {"started_speaking_at": 10.5, "stopped_speaking_at": 11.25, "transcription_delay": 0.4}
    return message


def test_a_turn_that_comes_both_ways_is_told_once() -> None:
    once = TurnEnded("Ever tried.", 0.9, 10_500, 11_250, 400, None)

    assert told(turn(), turn()) == [once, once]


def test_faster_than_real_time_a_turn_has_no_wall_times() -> None:
    assert told(turn(), realtime=False) == [TurnEnded("Ever tried.", 0.9)]


@pytest.mark.parametrize("item", [llm.AgentHandoff(new_agent_id="listening"), turn("assistant")])
def test_what_is_no_turn_of_the_user_is_not_told(item: llm.ChatMessage | llm.AgentHandoff) -> None:
    reported: list[object] = []
    tap = SessionTap(reported.append, on_closed=lambda _: None, realtime=True, guard=ErrorGuard())

    tap._handlers["conversation_item_added"](ConversationItemAddedEvent(item=item))

    assert not reported
