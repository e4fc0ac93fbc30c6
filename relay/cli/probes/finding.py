"""The result of one probe, as a value."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    """``livekit``, ``stt deepgram``, ``endpoint crm``, ``secret crm``, ``outbox``."""
    status: Literal["ok", "warning", "failed", "not tried"]
    detail: str
    """What was found, and for a warning or a failure the cure."""
