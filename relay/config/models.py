"""config.yaml as types: every key, its default and its unit. Loading and messages are in :mod:`relay.config.load`."""

from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from relay.config.fields import (
    Address,
    Duration,
    EndpointUrl,
    EventPattern,
    Globs,
    Headers,
    LiveKitUrl,
    OutboxUrl,
    ParticipantKind,
    PositiveDuration,
    SigningSecrets,
)
from relay.errors import ConfigError
from relay.events.catalog import DEFAULT_EVENTS


class Section(BaseModel):
    """A part of config.yaml. An unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LiveKit(Section):
    url: LiveKitUrl | None = None
    """ws:// or wss:// address of the LiveKit server; ``LIVEKIT_URL`` overrides it."""
    api_key: str | None = None
    """``LIVEKIT_API_KEY`` overrides it."""
    api_secret: SecretStr | None = None
    """``LIVEKIT_API_SECRET`` overrides it."""
    agent_name: str = Field(default="speech-relay", min_length=1)
    """The name under which the relay is dispatched to rooms. Two relays on one LiveKit project need two names, or they
    share the rooms between them."""


class Participants(Section):
    kinds: tuple[ParticipantKind, ...] = ("standard", "sip", "connector")
    """Kinds of participants to listen to. Agents and egress never are, unless named here."""


class Provider(Section):
    provider: str
    options: dict[str, Any] = Field(default={}, repr=False)  # may hold an API key
    """Passed to the plugin's constructor as they are."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"provider": value} if isinstance(value, str) else value


class Vad(Provider):
    provider: Literal["silero", "livekit", "none"] = "silero"


class Capture(Section):
    rooms: Globs = ("*",)
    """Rooms to listen to, by name."""
    participants: Participants = Participants()
    vad: Vad = Vad()
    """silero (livekit-plugins-silero), livekit (bundled with livekit-agents) or none."""
    stt: Provider = Provider(provider="deepgram")
    """deepgram, assemblyai, cartesia, livekit (its Inference gateway), moonshine (local), none, or another LiveKit STT
    plugin by name."""
    away_after: Duration | None = timedelta(seconds=15)
    """Silence after which a user's state is ``away``; null for never."""
    forward_transcripts: bool = False
    """Also publish transcripts to the room, as LiveKit's own agents do: text stream ``lk.transcription`` and
    transcription event, one segment per utterance, under the name of who spoke."""
    visible: bool = False
    """Show the relay to participants as an agent that listens (``lk.agent.state``), as frontends for agents expect."""
    max_load: float = Field(default=0.7, gt=0, le=1)
    """Share of the machine's CPU above which no new rooms are taken."""


class Speech(Section):
    merge_gap: Duration = timedelta(0)
    """Speech that resumes within this pause is the same utterance; the end waits that long."""
    transcript_timeout: Duration = timedelta(seconds=5)
    """How long after the end of speech a transcript may still come, before the utterance completes without one."""
    overlap_min: Duration = timedelta(milliseconds=300)
    """Two who speak at once for a shorter time than this do not overlap."""


class Outbox(Section):
    url: OutboxUrl = "sqlite:///var/relay.db"
    """sqlite:///relative/path.db or sqlite:////absolute/path.db"""
    retention: Duration = timedelta(days=7)
    """How long events are kept after every endpoint has them."""


class Include(Section):
    """What an endpoint gets of each event. What is left out does not leave the machine for that endpoint."""

    text: bool = True
    """Transcribed text, and with it the words; false empties both."""
    words: bool = True
    attributes: bool = True
    """The participant's attributes."""


class Retry(Section):
    schedule: tuple[Duration, ...] = tuple(
        timedelta(seconds=s) for s in (1, 5, 30, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    )
    """Waits before the second, third, … attempt. After the last one the event is dead: kept, no longer tried."""
    jitter: float = Field(default=0.2, ge=0, le=1)
    """Each wait is varied by up to this share of itself, up or down."""


class Endpoint(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    url: EndpointUrl
    signing: Literal["standard", "none"] = "standard"
    """standard: Standard Webhooks signatures; none must be asked for."""
    secret: SigningSecrets | None = None
    """``whsec_…``; a list while rotating. Without it: the variable ``<NAME>_WEBHOOK_SECRET``, which ``init`` writes."""
    events: tuple[EventPattern, ...] = DEFAULT_EVENTS
    rooms: Globs = ("*",)
    participants: Globs = ("*",)
    """Participants' identities. Where they are narrowed, ``overlap.*`` is left out: it names others too."""
    include: Include = Include()
    headers: Headers = Field(default={}, repr=False)  # may hold credentials
    timeout: PositiveDuration = timedelta(seconds=15)
    """For the whole attempt: connecting, sending, and reading the answer."""
    concurrency: int = Field(default=16, ge=1, le=256)
    """Requests in flight at once to this endpoint."""
    retry: Retry = Retry()

    @property
    def secret_variable(self) -> str:
        """The variable that holds the secret when the file does not: ``CRM_WEBHOOK_SECRET`` for ``crm``."""
        return secret_variable(self.name)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret to sign with, newest first; empty only where ``signing: none`` asks for it.

        Raises :class:`ConfigError` rather than let an endpoint go unsigned by accident.
        """
        if self.signing == "none":
            return ()
        if not self.secret:
            raise ConfigError(
                f"endpoint {self.name} has no secret; set {self.secret_variable} or ask for signing: none"
            )
        return tuple(secret.get_secret_value() for secret in self.secret)


def secret_variable(name: str) -> str:
    """The environment variable that holds the secret of the endpoint of that name."""
    return f"{name.upper().replace('-', '_')}_WEBHOOK_SECRET"


class Admin(Section):
    listen: Address | None = "127.0.0.1:8790"
    """Address of /healthz and /readyz; null for none."""


class Shutdown(Section):
    grace: Duration = timedelta(seconds=20)
    """From SIGTERM to exit: streams end, what is appended is sent, the rest waits for the next start."""


class Config(Section):
    livekit: LiveKit = LiveKit()
    capture: Capture = Capture()
    speech: Speech = Speech()
    outbox: Outbox = Outbox()
    endpoints: tuple[Endpoint, ...] = ()
    admin: Admin = Admin()
    shutdown: Shutdown = Shutdown()
