"""LiveKit rooms as a source: participants, audio, and coverage of every room exactly once."""
