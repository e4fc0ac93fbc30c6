"""LiveKit rooms as a source: who is there, their audio, and that every room is heard, once."""
