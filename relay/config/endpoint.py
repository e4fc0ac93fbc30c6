"""``endpoints``: where to send, which events and fields, how to sign, and how to handle failures."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, IPvAnyNetwork, PrivateAttr, model_validator

from relay.config.fields import (
    NAME,
    ApiKey,
    ApiSecret,
    CaFile,
    Duration,
    EndpointUrl,
    EventPattern,
    Fraction,
    Globs,
    Headers,
    PositiveDuration,
    ReadableFile,
    Section,
    SigningSecrets,
    Whole,
)
from relay.config.tls import client_context, digest
from relay.errors import ConfigError
from relay.events.catalog import DEFAULT_EVENTS


class Include(Section):
    """What an endpoint gets of each event. Excluded parts do not leave the machine for that endpoint."""

    text: bool = True
    """Transcribed text, and with it the words; false empties both."""
    words: bool = True
    """Single words with their times and confidence; false empties the list."""
    attributes: bool | tuple[str, ...] = True
    """The participant's attributes: all of them, none, or those with these names (``[tenant, role]``)."""


class Retry(Section):
    schedule: tuple[Duration, ...] = tuple(
        timedelta(seconds=s) for s in (1, 5, 30, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    )
    """Waits before the second, third, … attempt. After the last one the event is dead: kept, no longer retried."""
    jitter: Fraction = Field(default=0.2, ge=0, le=1)
    """Each wait is varied by up to this share of itself, up or down."""
    park_after: Duration = timedelta(minutes=5)
    """An event that has failed for this long beside a healthy endpoint no longer blocks the events behind it, unless
    ``order: strict``."""


class Breaker(Section):
    """When an endpoint that mostly fails is given a rest. All events are kept meanwhile."""

    requests: Whole = Field(default=10, ge=1)
    """Minimum attempts within ``window`` for a decision."""
    failing: Fraction = Field(default=0.7, gt=0, le=1)
    """Share of failed attempts at which sending stops for a while."""
    window: PositiveDuration = timedelta(minutes=5)
    """Attempts older than this do not count."""
    rest: PositiveDuration = timedelta(seconds=30)
    """Length of that time; then a single attempt tests whether the endpoint has recovered."""


class Tls(Section):
    """Custom certificates. Paths are relative to the directory that the relay runs in."""

    ca: CaFile | None = None
    """PEM file of the authorities to trust for this endpoint, in place of the system's."""
    cert: ReadableFile | None = None
    """PEM file of the client certificate to present, and of its chain."""
    key: ReadableFile | None = None
    """PEM file of its private key; without it, the key is looked for in ``cert``."""
    _digests: tuple[bytes, ...] = PrivateAttr(default=())
    """The content that was read: a replaced file changes this value, as a changed path does."""

    @model_validator(mode="after")
    def _a_pair(self) -> Self:
        if self.key is not None and self.cert is None:
            raise ValueError("has a key and no cert; name the certificate that the key belongs to")
        client_context(self.ca, self.cert, self.key)
        self._digests = tuple(digest(path) for path in self.files)
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it is read from."""
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)


class Egress(Section):
    """Which addresses may be connected to. Link-local, metadata, multicast and unspecified ones never are."""

    public_only: bool = False
    """Refuse private, loopback and shared addresses too."""
    allow: tuple[IPvAnyNetwork, ...] = ()
    """Networks that ``public_only`` does not refuse, such as ``10.1.0.0/16``."""


class LiveKitKey(Section):
    """A key pair of a LiveKit project, to sign as its server does."""

    api_key: ApiKey = Field(min_length=1)
    api_secret: ApiSecret = Field(min_length=1)


class Named(Section):
    name: str = Field(pattern=NAME)
    """Lower-case letters, digits, ``-`` and ``_``. A renamed endpoint is a new one: pending events are not moved."""


class EndpointOptions(Section):
    """What an endpoint may choose wherever it is defined: nothing of this names a file or a variable of the host."""

    url: EndpointUrl
    """Where events are sent, each as a POST."""
    format: Literal["standard", "cloudevents"] = "standard"
    """standard: the event as its page says; cloudevents: the same inside a CloudEvents 1.0 structured JSON event."""
    events: tuple[EventPattern, ...] = DEFAULT_EVENTS
    """Event types to send, by name or by a pattern such as ``vad.*``."""
    rooms: Globs = ("*",)
    """Rooms to send events of, by name; globs."""
    participants: Globs = ("*",)
    """Participants' identities. If they are restricted, ``overlap.*`` is left out: it names other participants too."""
    include: Include = Include()
    headers: Headers = Field(default={}, repr=False)  # may hold credentials
    """Further headers of each request."""
    timeout: PositiveDuration = timedelta(seconds=15)
    """For the whole attempt: connecting, sending, and the head of the answer."""
    connect_timeout: PositiveDuration = timedelta(seconds=5)
    """For name resolution, connecting and the TLS handshake."""
    max_connection_age: PositiveDuration = timedelta(seconds=60)
    """Maximum lifetime of a connection, from its name look-up. A changed DNS record takes effect within that time."""
    concurrency: Whole = Field(default=16, ge=1, le=256)
    """Maximum requests in flight to this endpoint. Fewer after timeouts, 429, 502, 503 and 504, until it recovers."""
    order: Literal["park", "strict"] = "park"
    """strict: a failing event blocks the events behind it, on its stream, until it is delivered or dead."""
    interim_ttl: Duration = Field(default=timedelta(seconds=10), le=timedelta(seconds=60))
    """How long an interim transcript is worth sending."""
    retry: Retry = Retry()
    breaker: Breaker | None = Breaker()
    """null for none."""
    disable_after: PositiveDuration | None = timedelta(days=5)
    """An endpoint that has failed for this long without a success is disabled; null for never. Its events are kept."""
    keep_answers: bool = False
    """Keep the first 1024 bytes of each answer with its attempt, and show them in ``deliveries show`` and the HTTP API.
    They are removed with the attempt."""


class Endpoint(EndpointOptions, Named):
    signing: Literal["standard", "livekit", "none"] = "standard"
    """standard: Standard Webhooks signatures; livekit: the Authorization header that LiveKit's ``WebhookReceiver``
    verifies; none must be set explicitly."""
    secret: SigningSecrets | None = None
    """``whsec_…``; during a rotation, a list or several separated by blanks, newest first. Without it: the variable
    ``<NAME>_WEBHOOK_SECRET``, which ``init`` writes."""
    livekit_key: LiveKitKey | None = None
    """For ``signing: livekit``. Without it: ``livekit.api_key`` and ``livekit.api_secret``."""
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
        """The variable that holds the secret if the file does not: ``CRM_WEBHOOK_SECRET`` for ``crm``."""
        return secret_variable(self.name)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret to sign with, newest first; empty only if another ``signing`` is configured.

        Raises :class:`ConfigError` rather than leave an endpoint unsigned by accident.
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
        """Key and secret for ``signing: livekit``. Raises :class:`ConfigError` if they are missing."""
        if self.livekit_key is None:
            raise ConfigError(f"endpoint {self.name} has no livekit_key to sign with; set it, or LIVEKIT_API_KEY")
        return self.livekit_key.api_key, self.livekit_key.api_secret.get_secret_value()


def secret_variable(name: str) -> str:
    """The environment variable that holds the secret of the endpoint with that name."""
    return f"{name.upper().replace('-', '_')}_WEBHOOK_SECRET"
