"""``capture``: the participants to listen to, the providers, and how the relay appears in the room."""

import re
from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from relay.config.fields import Duration, Fraction, Glob, Globs, ParticipantKind, PositiveDuration, Section, Whole


class Participants(Section):
    kinds: tuple[ParticipantKind, ...] = ("standard", "sip", "connector")
    """Kinds of participants to listen to. Agents and egress are excluded unless named here."""
    sources: tuple[Literal["microphone", "screen_share_audio", "unknown"], ...] = Field(
        default=("microphone", "screen_share_audio", "unknown"), min_length=1
    )
    """The source of their audio, as LiveKit reports it. ``screen_share_audio`` is the audio of a shared tab;
    ``unknown`` is a source that the client did not name."""


_MODEL = re.compile(r"[a-z][a-z0-9_-]*/\S+")
"""Of LiveKit Inference, with its provider's name in front."""


def _named_once(name: str, model: object, key: str) -> None:
    if model is not None:
        raise ValueError(f"has {key} beside provider: {name}, which names a model already; take one of them out")


class Provider(Section):
    provider: str
    options: dict[str, Any] = Field(default={}, repr=False)  # may hold an API key
    """Passed unchanged to the plugin's constructor."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return cls._whole({"provider": value} if isinstance(value, str) else value)

    @classmethod
    def _whole(cls, section: object) -> object:
        """``deepgram/nova-3`` is a model of LiveKit Inference, as in LiveKit's own sessions."""
        match section:
            case {"provider": str(name), **rest} if _MODEL.fullmatch(name):
                options = rest.get("options", {})
                if isinstance(options, dict):
                    _named_once(name, options.get("model"), "options.model")
                    return {**rest, "provider": "livekit", "options": {**options, "model": name}}
        return section


class Vad(Provider):
    provider: Literal["silero", "livekit", "none"] = "silero"

    @classmethod
    def _whole(cls, section: object) -> object:
        return section


class Realtime(Provider):
    """A realtime model. It listens only: options that would let it answer are refused."""

    provider: str
    """A realtime model that replaces ``vad`` and ``stt``: openai, livekit (its Inference gateway), or another LiveKit
    plugin with a realtime model by name. Without the section: none."""
    model: str | None = None
    """Such as gpt-realtime; null for the plugin's own default."""

    @classmethod
    def _whole(cls, section: object) -> object:
        match section:
            case {"provider": str(name), **rest} if _MODEL.fullmatch(name):
                _named_once(name, rest.get("model"), "model")
                return {**rest, "provider": "livekit", "model": name}
        return section


class Observe(Section):
    """An agent that already runs in the room. The relay reports what its session hears, and listens to nothing
    itself."""

    agent: Glob
    """The agent that already runs in the room, by its dispatch name or its identity; a glob. The relay reports what its
    session hears; this replaces ``vad``, ``stt`` and ``realtime``. Without the section: none."""

    @field_validator("agent")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError('is empty; name the agent, or write "*" for any')
        return value

    @model_validator(mode="before")
    @classmethod
    def _agent_alone(cls, value: object) -> object:
        return {"agent": value} if isinstance(value, str) else value


class Capture(Section):
    rooms: Globs = ("*",)
    """Rooms to listen to, by name."""
    participants: Participants = Participants()
    vad: Vad = Vad()
    """silero (livekit-plugins-silero), livekit (bundled with livekit-agents) or none."""
    stt: Provider = Provider(provider="deepgram")
    """deepgram, assemblyai, cartesia, livekit (its Inference gateway), one of the gateway's models (deepgram/nova-3),
    moonshine (local), none, or another LiveKit STT plugin by name."""
    realtime: Realtime | None = None
    """Replaces ``vad`` and ``stt``."""
    observe: Observe | None = None
    """Replaces all three if a voice agent already runs: see docs/how-to/observe-an-agent.md."""
    away_after: Duration | None = timedelta(seconds=15)
    """Silence after which a user's state is ``away``; null for never."""
    forward_transcripts: bool = False
    """Also publish transcripts to the room, as LiveKit's own agents do: text stream ``lk.transcription`` and
    transcription event, one segment per utterance, under the speaker's name."""
    visible: bool = False
    """Show the relay to participants as a listening agent (``lk.agent.state``), as frontends for agents expect."""
    poll_interval: PositiveDuration = Field(default=timedelta(milliseconds=100), le=timedelta(minutes=1))
    """Pause between two looks at the server's rooms: how long a room may wait that no webhook reported. With
    ``api.livekit_webhook``, a few seconds are enough."""
    max_load: Fraction = Field(default=0.7, gt=0, le=1)
    """Share of the machine's CPU above which no new rooms are accepted."""
    max_tracks_per_participant: Whole = Field(default=2, ge=1)
    """Maximum audio tracks of one participant heard at once. Another track waits until one of them ends."""
    max_streams_per_room: Whole = Field(default=100, ge=1)
    """Maximum audio tracks of one room heard at once. Another track waits until one of them ends."""
    max_warm_processes: Whole | None = Field(default=None, ge=1)
    """Maximum processes that wait for rooms, so that a room is heard at once; null for as many as fit into a quarter of
    the memory that is free when the relay is ready, at most 16. docs/how-to/operate.md lists the memory of each."""
    environment: tuple[str, ...] = ()
    """Names of environment variables that a plugin reads and that are not named after it: job processes get no others.
    docs/how-to/choose-a-provider.md lists the ones they do get."""

    @model_validator(mode="after")
    def _one_way_to_hear(self) -> Self:
        beside = [
            key
            for key, provider in (("vad", self.vad), ("stt", self.stt))
            if key in self.model_fields_set and provider.provider != "none"
        ]
        if self.observe is not None:
            beside += ["realtime"] * (self.realtime is not None)
            beside += ["forward_transcripts"] * self.forward_transcripts
        instead = "observe" if self.observe is not None else "realtime"
        if beside and (self.observe is not None or self.realtime is not None):
            keys = " and ".join(beside)
            raise ValueError(f"has {instead}, which takes the place of {keys}; take {keys} out, or {instead}")
        return self
