"""Named counters of one dispatcher, since it started."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    delivered: int = 0
    """Events that an endpoint took."""
    retried: int = 0
    """Attempts after which the event waits for another."""
    parked: int = 0
    """Events that were put aside, to be retried out of their order."""
    dead: int = 0
    """Events that were given up on."""
    skipped: int = 0
    """Events passed over: not subscribed to, superseded, expired, or an interim whose only try failed."""
    faults: int = 0
    """Attempts that failed on our own side."""
    fenced: int = 0
    """Lanes that turned out to be somebody else's by now."""
    found_by_sweep: int = 0
    """Streams whose ring was lost. Anything but 0 costs up to a second each, and should be looked into."""
