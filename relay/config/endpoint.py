"""``endpoints``: where to send, what of it, how to sign, and what to do when it fails."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, IPvAnyNetwork, PrivateAttr, model_validator

from relay.config.fields import (
    ApiKey,
    ApiSecret,
    CaFile,
    Duration,
    EndpointUrl,
    EventPattern,
    Globs,
    Headers,
    PositiveDuration,
    ReadableFile,
    SigningSecrets,
)
from relay.config.section import Section
from relay.config.tls import client_context, digest
from relay.errors import ConfigError
from relay.events.catalog import DEFAULT_EVENTS


class Include(Section):
    """What an endpoint gets of each event. What is left out does not leave the machine for that endpoint."""

    text: bool = True
    """Transcribed text, and with it the words; false empties both."""
    words: bool = True
    attributes: bool | tuple[str, ...] = True
    """The participant's attributes: all of them, none, or those of these names (``[tenant, role]``)."""


class Retry(Section):
    schedule: tuple[Duration, ...] = tuple(
        timedelta(seconds=s) for s in (1, 5, 30, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    )
    """Waits before the second, third, … attempt. After the last one the event is dead: kept, no longer tried."""
    jitter: float = Field(default=0.2, ge=0, le=1)
    """Each wait is varied by up to this share of itself, up or down."""
    park_after: Duration = timedelta(minutes=5)
    """An event that has failed for so long beside a healthy endpoint no longer holds up those behind it, unless
    ``order: strict``."""


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
    _digests: tuple[bytes, ...] = PrivateAttr(default=())
    """What was read: a file that was replaced makes another one of this, as a changed path does."""

    @model_validator(mode="after")
    def _a_pair(self) -> Self:
        if self.key is not None and self.cert is None:
            raise ValueError("has a key and no cert; name the certificate that the key belongs to")
        client_context(self.ca, self.cert, self.key)
        self._digests = tuple(digest(path) for path in self.files)
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """What it is read from."""
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)


class Egress(Section):
    """Which addresses may be connected to. Link-local, metadata, multicast and unspecified ones never are."""

    public_only: bool = False
    """Refuse private, loopback and shared addresses too."""
    allow: tuple[IPvAnyNetwork, ...] = ()
    """Networks that ``public_only`` does not refuse, such as ``10.1.0.0/16``."""


class LiveKitKey(Section):
    """A key pair of a LiveKit project, to sign with as its server does."""

    api_key: ApiKey = Field(min_length=1)
    api_secret: ApiSecret = Field(min_length=1)


class Endpoint(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    url: EndpointUrl
    format: Literal["standard", "cloudevents"] = "standard"
    """standard: the event as its page says; cloudevents: the same inside a CloudEvents 1.0 structured JSON event."""
    signing: Literal["standard", "livekit", "none"] = "standard"
    """standard: Standard Webhooks signatures; livekit: the Authorization header that LiveKit's ``WebhookReceiver``
    verifies; none must be asked for."""
    secret: SigningSecrets | None = None
    """``whsec_…``; while rotating, a list or several with blanks between, newest first. Without it: the variable
    ``<NAME>_WEBHOOK_SECRET``, which ``init`` writes."""
    livekit_key: LiveKitKey | None = None
    """For ``signing: livekit``. Without it: ``livekit.api_key`` and ``livekit.api_secret``."""
    events: tuple[EventPattern, ...] = DEFAULT_EVENTS
    rooms: Globs = ("*",)
    participants: Globs = ("*",)
    """Participants' identities. Where they are narrowed, ``overlap.*`` is left out: it names others too."""
    include: Include = Include()
    headers: Headers = Field(default={}, repr=False)  # may hold credentials
    timeout: PositiveDuration = timedelta(seconds=15)
    """For the whole attempt: connecting, sending, and the head of the answer."""
    connect_timeout: PositiveDuration = timedelta(seconds=5)
    """For finding the address, connecting and the TLS handshake."""
    max_connection_age: PositiveDuration = timedelta(seconds=60)
    """How long a connection is used, from the look-up of its name. A name that moves is followed within that."""
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
