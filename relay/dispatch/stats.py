"""Named counters of one dispatcher, since it started."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    delivered: int = 0
    """Events that an endpoint accepted."""
    retried: int = 0
    """Attempts after which the event waits for a retry."""
    parked: int = 0
    """Events that were parked, to be retried out of order."""
    dead: int = 0
    """Events that became dead letters."""
    skipped: int = 0
    """Events skipped: not subscribed to, superseded, expired, or an interim whose only attempt failed."""
    faults: int = 0
    """Attempts that failed on our own side."""
    fenced: int = 0
    """Lanes that another dispatcher had taken over."""
    found_by_sweep: int = 0
    """Streams whose ring was lost. Each one costs up to a second; any value but 0 should be investigated."""
