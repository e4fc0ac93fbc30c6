"""Isolates the private parts of LiveKit's agent session that are used here."""

from typing import Any

from livekit.agents import AgentSession


def forget_recorded_events(session: AgentSession[Any]) -> None:
    """Drop the events that a session keeps for a final report, which is not used here.

    It keeps every one, transcripts included, for as long as it lives, and has no public way to bound that
    (``AgentSession._recorded_events``; livekit-agents 1.8.9).
    """
    session._recorded_events.clear()  # noqa: SLF001 - see above; tests/contract/test_capture_session.py names it
