"""The tracker's timeouts."""

from dataclasses import dataclass

CLOSE_WAIT_MS = 3000
"""How long a detector that was closed in mid-speech waits for the reason. Closing an agent session takes up to 2 s (it
waits for its last transcript), and the end of the stream is reported after that."""

OUTAGE_WAIT_MS = 30_000
"""How long ended speech waits for its text while the transcriber is down: as long as audio is buffered for it."""


KEPT_UTTERANCES = 32
"""The number of completed utterances, with their texts, that are remembered for late text. A provider gets at most the
last 30 s of audio again."""


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """All in milliseconds."""

    merge_gap_ms: int = 0
    """Speech that resumes within this belongs to the same utterance; its end waits that long. 0: every pause ends
    it."""
    transcript_timeout_ms: int = 5000
    """After the end of speech without a final, or after an interim without voice activity: no transcript comes."""
    final_grace_ms: int = 600
    """After the end of speech and the last transcript: no further final comes."""
    untranscribed_ms: int = 1000
    """Where the finals' words end earlier than speech by this much, further finals are waited for: a long utterance
    gets several, and a busy provider may be late with the last one."""
    join_timeout_ms: int = 1000
    """A provider final that the session has not reported by then is released without it."""
