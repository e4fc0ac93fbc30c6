"""How long the tracker waits, and for what."""

from dataclasses import dataclass

CLOSE_WAIT_MS = 3000
"""How long a detector that was closed in mid-speech waits to be told why. Closing an agent session takes up to 2 s
(it waits for its last transcript), and the end of the stream is reported after that."""

OUTAGE_WAIT_MS = 30_000
"""How long speech that is over waits for its text while what transcribes is down: as long as audio is kept for it."""


KEPT_UTTERANCES = 32
"""How many completed utterances are remembered for text that comes late, with their texts. A provider is told at most
the last 30 s of audio again."""


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """All in milliseconds."""

    merge_gap_ms: int = 0
    """Speech that resumes within this is the same utterance; its end waits that long. 0: every pause ends it."""
    transcript_timeout_ms: int = 5000
    """After the end of speech without a final, or after an interim without voice activity: no transcript comes."""
    final_grace_ms: int = 600
    """After the end of speech and the last transcript: no further final comes."""
    untold_ms: int = 1000
    """Where the words of the finals end earlier than speech by this much, the rest is waited for: a long utterance
    gets several finals, and a busy provider takes its time with the last one."""
    join_timeout_ms: int = 1000
    """The provider's final that the session has not reported by then is reported as it is."""
