"""config.yaml as types: every key, its default and its unit. Loading and messages are in :mod:`relay.config.load`."""

from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, field_validator, model_validator

from relay.config.fields import (
    Address,
    CaFile,
    Duration,
    EndpointUrl,
    EventPattern,
    Globs,
    Headers,
    LiveKitUrl,
    OutboxUrl,
    ParticipantKind,
    PositiveDuration,
    ReadableFile,
    SigningSecrets,
)
from relay.config.tls import client_context
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


class Realtime(Provider):
    """A realtime model. It listens only: whatever would let it answer is refused."""

    provider: str
    """A realtime model in the place of ``vad`` and ``stt``, which do not run then: openai, livekit (its Inference
    gateway), or another LiveKit plugin with a realtime model by name. Without the section: none."""
    model: str | None = None
    """Such as gpt-realtime; null for the plugin's own default."""


class Observe(Section):
    """An agent that runs in the room already. What its session hears is told, and nothing is listened to here."""

    agent: str
    """An agent that runs in the room already, by the name that it is dispatched by or by its identity; a glob. What its
    session hears is told, in the place of ``vad``, ``stt`` and ``realtime``. Without the section: none."""

    @field_validator("agent")
    @classmethod
    def _somebody(cls, value: str) -> str:
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
    """deepgram, assemblyai, cartesia, livekit (its Inference gateway), moonshine (local), none, or another LiveKit STT
    plugin by name."""
    realtime: Realtime | None = None
    """In the place of ``vad`` and ``stt``."""
    observe: Observe | None = None
    """In the place of all three, where a voice agent runs already: docs/rooms.md says what its session tells."""
    away_after: Duration | None = timedelta(seconds=15)
    """Silence after which a user's state is ``away``; null for never."""
    forward_transcripts: bool = False
    """Also publish transcripts to the room, as LiveKit's own agents do: text stream ``lk.transcription`` and
    transcription event, one segment per utterance, under the name of who spoke."""
    visible: bool = False
    """Show the relay to participants as an agent that listens (``lk.agent.state``), as frontends for agents expect."""
    max_load: float = Field(default=0.7, gt=0, le=1)
    """Share of the machine's CPU above which no new rooms are taken."""

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
    park_after: Duration = timedelta(minutes=5)
    """An event that has failed for so long no longer holds up those behind it, unless ``order: strict``."""


class Breaker(Section):
    """When an endpoint that mostly fails gets a rest. Everything is kept meanwhile."""

    requests: int = Field(default=10, ge=1)
    """Attempts within ``window`` below which nothing is concluded."""
    failing: float = Field(default=0.7, gt=0, le=1)
    """Share of failed attempts at which nothing more is sent for a while."""
    window: PositiveDuration = timedelta(minutes=5)
    rest: PositiveDuration = timedelta(seconds=30)
    """For how long; then a single attempt shows whether it is over."""


class Tls(Section):
    """Certificates of one's own. Paths are relative to the directory that the relay runs in."""

    ca: CaFile | None = None
    """PEM file of the authorities to trust for this endpoint, in place of the system's."""
    cert: ReadableFile | None = None
    """PEM file of the client certificate to present, and of its chain."""
    key: ReadableFile | None = None
    """PEM file of its private key; without it, the key is looked for in ``cert``."""

    @model_validator(mode="after")
    def _a_pair(self) -> Self:
        if self.key is not None and self.cert is None:
            raise ValueError("has a key and no cert; name the certificate that the key belongs to")
        client_context(self.ca, self.cert, self.key)
        return self


class Egress(Section):
    """Which addresses may be connected to. Link-local, metadata, multicast and unspecified ones never are."""

    public_only: bool = False
    """Refuse private, loopback and shared addresses too."""
    allow: tuple[IPvAnyNetwork, ...] = ()
    """Networks that ``public_only`` does not refuse, such as ``10.1.0.0/16``."""


class LiveKitKey(Section):
    """A key pair of a LiveKit project, to sign with as its server does."""

    api_key: str = Field(min_length=1)
    api_secret: SecretStr = Field(min_length=1)


class Endpoint(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    url: EndpointUrl
    format: Literal["standard", "cloudevents"] = "standard"
    """standard: the event as its page says; cloudevents: the same inside a CloudEvents 1.0 structured JSON event."""
    signing: Literal["standard", "livekit", "none"] = "standard"
    """standard: Standard Webhooks signatures; livekit: the Authorization header that LiveKit's ``WebhookReceiver``
    verifies; none must be asked for."""
    secret: SigningSecrets | None = None
    """``whsec_…``; a list while rotating. Without it: the variable ``<NAME>_WEBHOOK_SECRET``, which ``init`` writes."""
    livekit_key: LiveKitKey | None = None
    """For ``signing: livekit``. Without it: ``livekit.api_key`` and ``livekit.api_secret``."""
    events: tuple[EventPattern, ...] = DEFAULT_EVENTS
    rooms: Globs = ("*",)
    participants: Globs = ("*",)
    """Participants' identities. Where they are narrowed, ``overlap.*`` is left out: it names others too."""
    include: Include = Include()
    headers: Headers = Field(default={}, repr=False)  # may hold credentials
    timeout: PositiveDuration = timedelta(seconds=15)
    """For the whole attempt: connecting, sending, and reading the answer."""
    connect_timeout: PositiveDuration = timedelta(seconds=5)
    """For finding the address, connecting and the TLS handshake."""
    concurrency: int = Field(default=16, ge=1, le=256)
    """Requests in flight at once to this endpoint. Fewer after timeouts, 429, 502, 503 and 504, until it recovers."""
    order: Literal["park", "strict"] = "park"
    """strict: an event that fails keeps blocking those behind it, on its stream, until it is delivered or dead."""
    interim_ttl: Duration = Field(default=timedelta(seconds=10), le=timedelta(seconds=60))
    """How long an interim transcript is worth sending."""
    retry: Retry = Retry()
    breaker: Breaker | None = Breaker()
    """null for none."""
    disable_after: PositiveDuration | None = timedelta(days=5)
    """An endpoint that has failed for so long without a success is disabled; null for never. Its events are kept."""
    tls: Tls = Tls()
    egress: Egress = Egress()

    @model_validator(mode="after")
    def _tls_over_https(self) -> Self:
        if self.url.scheme == "http" and self.tls != Tls():
            raise ValueError("has tls, and a url without; write https://")
        return self

    @model_validator(mode="after")
    def _one_authorization(self) -> Self:
        if self.signing == "livekit" and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("has a header Authorization, which signing: livekit sets itself; take it out")
        return self

    @property
    def secret_variable(self) -> str:
        """The variable that holds the secret when the file does not: ``CRM_WEBHOOK_SECRET`` for ``crm``."""
        return secret_variable(self.name)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret to sign with, newest first; empty only where another ``signing`` asks for it.

        Raises :class:`ConfigError` rather than let an endpoint go unsigned by accident.
        """
        if self.signing != "standard":
            return ()
        if not self.secret:
            raise ConfigError(
                f"endpoint {self.name} has no secret; set {self.secret_variable} or ask for signing: none"
            )
        return tuple(secret.get_secret_value() for secret in self.secret)

    @property
    def livekit_pair(self) -> tuple[str, str]:
        """Key and secret for ``signing: livekit``. Raises :class:`ConfigError` where there are none."""
        if self.livekit_key is None:
            raise ConfigError(f"endpoint {self.name} has no livekit_key to sign with; set it, or LIVEKIT_API_KEY")
        return self.livekit_key.api_key, self.livekit_key.api_secret.get_secret_value()


def secret_variable(name: str) -> str:
    """The environment variable that holds the secret of the endpoint of that name."""
    return f"{name.upper().replace('-', '_')}_WEBHOOK_SECRET"


class Dispatch(Section):
    concurrency: int = Field(default=256, ge=1)
    """Requests in flight at once to all endpoints together. Each endpoint's first one is always let through."""


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
    dispatch: Dispatch = Dispatch()
    endpoints: tuple[Endpoint, ...] = ()
    admin: Admin = Admin()
    shutdown: Shutdown = Shutdown()
