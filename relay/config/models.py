"""The types of config.yaml: every key, its default and its unit. :mod:`relay.config.load` loads it."""

from datetime import timedelta

from pydantic import Field

from relay.config.api import Admin, Api
from relay.config.capture import Capture
from relay.config.endpoint import Endpoint
from relay.config.fields import ApiKey, ApiSecret, Duration, LiveKitUrl, OutboxUrl, Section, Whole


class LiveKit(Section):
    url: LiveKitUrl | None = None
    """ws:// or wss:// address of the LiveKit server; ``LIVEKIT_URL`` overrides it."""
    api_key: ApiKey | None = None
    """``LIVEKIT_API_KEY`` overrides it."""
    api_secret: ApiSecret | None = None
    """``LIVEKIT_API_SECRET`` overrides it."""
    agent_name: str = Field(default="speech-relay", min_length=1)
    """The name under which the relay is dispatched to rooms. Two relays on one LiveKit project need different names, or
    they share the rooms between them."""


class Speech(Section):
    merge_gap: Duration = timedelta(0)
    """Speech that resumes within this pause is the same utterance; the end waits that long."""
    transcript_timeout: Duration = timedelta(seconds=5)
    """How long after the end of speech a transcript may still arrive, before the utterance completes without one."""
    overlap_min: Duration = timedelta(milliseconds=300)
    """Two participants who speak at once for less than this do not overlap."""


class Spill(Section):
    path: str = Field(default="var/spill", min_length=1)
    """A folder of this user's alone. It is made when it is needed."""
    max: Whole = Field(default=256 << 20, ge=0)
    """Bytes of all files in it. What exceeds them is given up, with an error in the log."""


class OutboxConfig(Section):
    url: OutboxUrl = "sqlite:///var/relay.db"
    """sqlite:///relative/path.db (relative to the folder in which the command starts) or sqlite:////absolute/path.db,
    or postgresql://user@host/database. libpq's parameters may follow, and its variables are read: ``PGPASSWORD`` keeps
    the password out of the file."""
    retention: Duration = timedelta(days=7)
    """How long events are kept after they are settled for every endpoint."""
    spill: Spill = Spill()
    """Where events wait, after two seconds in memory, for a PostgreSQL server that is away. Not used with SQLite."""


class DispatchConfig(Section):
    concurrency: Whole = Field(default=256, ge=1)
    """Requests in flight at once to all endpoints together. Each endpoint's first one is always allowed."""


class Shutdown(Section):
    grace: Duration = timedelta(seconds=20)
    """From SIGTERM to exit: streams end, appended events are sent, the rest waits for the next start."""


class Config(Section):
    livekit: LiveKit = LiveKit()
    capture: Capture = Capture()
    speech: Speech = Speech()
    outbox: OutboxConfig = OutboxConfig()
    dispatch: DispatchConfig = DispatchConfig()
    endpoints: tuple[Endpoint, ...] = ()
    api: Api | None = None
    """The HTTP API, with health and metrics at the same address. Without the section it is off."""
    admin: Admin = Admin()
    shutdown: Shutdown = Shutdown()
