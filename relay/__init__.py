"""speech-relay: who speaks in LiveKit rooms, when, and what was said, as signed webhooks."""

__version__ = "0.1.0"
