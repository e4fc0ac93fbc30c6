"""config.yaml as types: every key, its default and its unit. Loading and messages are in :mod:`relay.config.load`."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, SecretStr

from relay.events.catalog import DEFAULT_EVENTS


class Section(BaseModel):
    """A part of config.yaml. An unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Globs = tuple[str, ...]
Duration = Annotated[timedelta, Field(ge=timedelta(0))]
"""Written as ``250ms``, ``10s``, ``5m``, ``1h``, or a number of seconds."""


class LiveKit(Section):
    url: str | None = None
    """ws:// or wss:// address of the LiveKit server; ``LIVEKIT_URL`` overrides it."""
    api_key: str | None = None
    """``LIVEKIT_API_KEY`` overrides it."""
    api_secret: SecretStr | None = None
    """``LIVEKIT_API_SECRET`` overrides it."""


class Participants(Section):
    kinds: tuple[str, ...] = ("standard", "sip", "connector")
    """Kinds of participants to listen to. Agents and egress never are, unless named here."""


class Provider(Section):
    provider: str
    options: dict[str, Any] = {}
    """Passed to the plugin's constructor as they are."""


class Capture(Section):
    rooms: Globs = ("*",)
    """Rooms to listen to, by name."""
    participants: Participants = Participants()
    vad: Provider = Provider(provider="silero")
    """silero (livekit-plugins-silero), livekit (bundled with livekit-agents) or none."""
    stt: Provider = Provider(provider="deepgram")
    """deepgram, moonshine (local), none, or any LiveKit STT plugin by name."""
    away_after: Duration | None = timedelta(seconds=15)
    """Silence after which a user's state is ``away``; null for never."""


class Speech(Section):
    merge_gap: Duration = timedelta(0)
    """Speech that resumes within this pause is the same utterance; the end waits that long."""
    transcript_timeout: Duration = timedelta(seconds=5)
    """How long after the end of speech a transcript may still come, before the utterance completes without one."""


class Outbox(Section):
    url: str = "sqlite:///var/relay.db"
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
    url: AnyHttpUrl
    signing: Literal["standard", "none"] = "standard"
    """standard: Standard Webhooks signatures; none must be asked for."""
    secret: SecretStr | tuple[SecretStr, ...] | None = None
    """``whsec_…``; a list while rotating. Without it: the variable ``<NAME>_WEBHOOK_SECRET``, which ``init`` writes."""
    events: Globs = DEFAULT_EVENTS
    rooms: Globs = ("*",)
    participants: Globs = ("*",)
    """Participants' identities."""
    include: Include = Include()
    headers: dict[str, str] = {}
    timeout: Duration = timedelta(seconds=15)
    """For the whole attempt: connecting, sending, and reading the answer."""
    concurrency: int = Field(default=16, ge=1, le=256)
    """Requests in flight at once to this endpoint."""
    retry: Retry = Retry()


class Admin(Section):
    listen: str | None = "127.0.0.1:8790"
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
