"""How much of everything: a size that runs with the other tests, and the whole."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    streams: int
    events: int
    """Durable ones, over all streams."""
    seconds: float
    """For how long they are appended."""
    kills: int
    """At random moments."""
    commits: int
    """After a start, so many commits are each died before and after, once; and so many POSTs."""
    gone_s: float
    """For how long nobody listens at one of the endpoints."""
    flap_s: float
    """Another one is up for so long, and down for so long."""
    within_s: float
    """From the first event until everything has arrived."""
    seed: int = 4


SMALL = Size(streams=30, events=1500, seconds=8, kills=6, commits=6, gone_s=4, flap_s=0.7, within_s=150)
FULL = Size(streams=200, events=20_000, seconds=60, kills=20, commits=30, gone_s=60, flap_s=2, within_s=900)
