"""What one probe found, as a value."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    """``livekit``, ``stt deepgram``, ``endpoint crm``, ``outbox``."""
    status: Literal["ok", "failed", "not tried"]
    detail: str
    """What was seen, and for a failure the cure."""
