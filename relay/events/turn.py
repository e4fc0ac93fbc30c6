"""``user.state_changed`` and ``turn.completed``: the agent session's view of the speech."""

from typing import Literal

from relay.events.envelope import Instant, Model, StreamEvent

UserState = Literal["speaking", "listening", "away"]


class UserStateChangedData(Model):
    old_state: UserState
    new_state: UserState


class UserStateChanged(StreamEvent):
    """The session's ``user_state_changed``."""

    type: Literal["user.state_changed"] = "user.state_changed"
    data: UserStateChangedData


class TurnCompletedData(Model):
    text: str
    """The whole turn, which may span several utterances."""
    confidence: float | None
    """The transcript's confidence, 0 to 1; null where the provider gives none."""
    started_speaking_at: Instant | None
    """When the turn's speech started, according to the session; null where it does not report it."""
    stopped_speaking_at: Instant | None
    """When the turn's speech ended, according to the session; null where it does not report it."""
    transcription_delay_ms: int | None
    """From the end of speech to the final transcript, in milliseconds."""
    end_of_turn_delay_ms: int | None
    """From the end of speech to the end-of-turn decision, in milliseconds."""


class TurnCompleted(StreamEvent):
    """The session decided that the user's turn is over."""

    type: Literal["turn.completed"] = "turn.completed"
    data: TurnCompletedData
