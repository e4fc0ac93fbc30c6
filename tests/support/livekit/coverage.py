"""Measures how long a room stays without capture, by the receiver's own clock."""

import logging
import os
import time
from collections.abc import Iterator
from itertools import pairwise

from relay.events.envelope import StreamEvent
from relay.events.speech import SpeechEnded, SpeechStarted
from relay.events.stream import StreamEnded, StreamStarted
from tests.support.audio.story import Stream, assert_whole, of, told
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import Receiver

VAD_ALONE = "stt: none"
"""Detectors for rooms in which only the presence of speech matters, not its text."""

HEARD_AGAIN_S = 5.0
"""From the moment that a room can be captured to its ``stream.started`` at the receiver."""
TOLD_S = 10.0
"""From the loss of a process to its ``stream.ended`` at the receiver."""

_ALLOWANCE = 2.0 if os.environ.get("CI") == "true" else 1.0
"""The factor for all bounds where other jobs share the machine."""

GIVE_UP_S = 60.0
"""How long to wait for what should take a few seconds, so that a missed bound shows by how much."""

_log = logging.getLogger(__name__)


def within(what: str, since: float, at: float, bound: float) -> None:
    """Assert that it came in time, and record how long it took. Times are of the monotonic clock, in seconds."""
    took = noted(f"{what} (bound {bound:g} s)", since, at)
    assert took <= bound * _ALLOWANCE, f"{what} took {took:.2f} s"


def noted(what: str, since: float, at: float) -> float:
    """Record how long something took, in seconds."""
    _log.info("%s: %.2f s", what, at - since)
    return at - since


def streams_of(receiver: Receiver, identity: str) -> list[Stream]:
    """A participant's events at the receiver, in the order of the streams."""
    return of(told(receiver.answered, SECRET), identity)


def arrivals(receiver: Receiver, identity: str) -> Iterator[tuple[float, StreamEvent]]:
    """When each event about a participant first arrived."""
    seen: set[str] = set()
    for request in receiver.answered:
        event = request.event
        if isinstance(event, StreamEvent) and event.participant.identity == identity and event.id not in seen:
            seen.add(event.id)
            yield request.at, event


def started_at(receiver: Receiver, identity: str) -> list[float]:
    """When the receiver learned of each of the participant's streams."""
    return [at for at, event in arrivals(receiver, identity) if isinstance(event, StreamStarted)]


def ended_at(receiver: Receiver, identity: str) -> list[float]:
    """When the receiver learned of the end of each."""
    return [at for at, event in arrivals(receiver, identity) if isinstance(event, StreamEnded)]


def starts_of_speech(receiver: Receiver, identity: str) -> int:
    return sum(isinstance(event, SpeechStarted) for _, event in arrivals(receiver, identity))


def ends_of_speech(receiver: Receiver, identity: str) -> int:
    return sum(isinstance(event, SpeechEnded) for _, event in arrivals(receiver, identity))


async def speaking(receiver: Receiver, identity: str) -> float:
    """Wait until a participant starts to speak and has not ended; return that time."""
    before = starts_of_speech(receiver, identity)
    await receiver.wait_for(
        lambda: (
            starts_of_speech(receiver, identity) > before
            and starts_of_speech(receiver, identity) > ends_of_speech(receiver, identity)
        ),
        within=GIVE_UP_S,
    )
    return time.monotonic()


async def heard_again(receiver: Receiver, identity: str, *, streams: int) -> None:
    """Wait until this many of the participant's streams reported speech: the last one then works, and does not only
    exist."""
    await receiver.wait_for(
        lambda: sum("speech.started" in stream.types() for stream in streams_of(receiver, identity)) >= streams,
        within=GIVE_UP_S,
    )


async def all_ended(receiver: Receiver, identity: str) -> None:
    await receiver.wait_for(
        lambda: all(stream.end for stream in streams_of(receiver, identity)),
        within=GIVE_UP_S,
    )


def assert_ends(receiver: Receiver, identity: str, reasons: list[str]) -> list[Stream]:
    """Each stream is complete, sent once, and in sequence in the log, with these end reasons."""
    streams = streams_of(receiver, identity)
    for stream in streams:
        assert_whole(stream)
    ends = [stream.end.data.reason for stream in streams if stream.end]
    assert ends == reasons, f"{ends} in place of {reasons}"
    for former, later in pairwise(streams):
        assert former.events[-1].timing.emitted_at <= later.events[0].timing.emitted_at, "two streams at once"
    return streams


def assert_cut(stream: Stream, reason: str) -> None:
    """The speech that was open at the end of the stream ended with it, once."""
    assert stream.ends[-1] == reason
    assert stream.ends.count(reason) == 1
