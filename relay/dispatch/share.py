"""Which part of the deliveries is this dispatcher's, among those that work on the log. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from relay.outbox.records import EVERY_STREAM, StreamShare


class DispatcherFleet(Protocol):
    """The dispatchers of the log, as this process sees them."""

    @property
    def process(self) -> str:
        """The id of this process, by which it owns lanes."""

    def dispatchers(self) -> Sequence[str]:
        """Ids of the processes that deliver now; without this one before the others can see it, or while the log cannot
        be read."""

    def ended(self) -> Collection[str]:
        """Ids of the processes that have certainly ended."""


class NoFleet:
    """The log has one dispatcher."""

    process = ""

    def dispatchers(self) -> Sequence[str]:
        return ("",)

    def ended(self) -> Collection[str]:
        return ()


@dataclass(frozen=True, slots=True)
class Share:
    """One dispatcher's part of an endpoint."""

    slots: int
    """How many of the endpoint's requests may be in flight from here; 0: another dispatcher sends to it."""
    streams: StreamShare
    """Whose lanes are its own, if it has slots."""

    def owns(self, stream: int) -> bool:
        """Whether the endpoint's lane on this stream is this dispatcher's."""
        return self.slots > 0 and stream % self.streams.of == self.streams.remainder


def share_of(endpoint: str, concurrency: int, dispatchers: Sequence[str], me: str) -> Share:
    """The share of ``me``, by the same rule in each of the ``dispatchers``.

    ``concurrency`` is split evenly. Who gets the remainder is ranked for each endpoint by itself, so that endpoints
    with few slots are spread over the fleet. Streams are split among those that have slots.
    """
    each, remainder = divmod(concurrency, len(dispatchers))
    ranked = sorted(dispatchers, key=lambda one: blake2b(f"{endpoint} {one}".encode(), digest_size=8).digest())
    with_slots = sorted(ranked if each else ranked[:remainder])
    if me not in with_slots:
        return Share(0, EVERY_STREAM)
    slots = each + (me in ranked[:remainder])
    return Share(slots, StreamShare(with_slots.index(me), len(with_slots)))


class Shares:
    """The shares of this dispatcher among those that it knew at its last look."""

    def __init__(self, fleet: DispatcherFleet) -> None:
        self._fleet = fleet
        self._known: dict[tuple[str, int], Share] = {}
        self._members = tuple(sorted({*fleet.dispatchers(), fleet.process}))
        self._is_leaving = False

    @property
    def alone(self) -> bool:
        """Whether there is no other dispatcher."""
        return len(self._members) == 1

    @property
    def size(self) -> int:
        """How many dispatchers share the work."""
        return len(self._members)

    @property
    def rank(self) -> int:
        """This dispatcher's place among them, from 0."""
        return self._members.index(self._fleet.process)

    def poll(self) -> bool:
        """Look at the fleet; returns whether the shares have changed."""
        members = tuple(sorted(self._fleet.dispatchers()))
        # not seen by the others: it has just started, or the log cannot be read
        if members == self._members or self._fleet.process not in members or self._is_leaving:
            return False
        self._members = members
        self._known.clear()
        return True

    def leave(self) -> bool:
        """Leave everything to the others, for good; False if there are none."""
        self._is_leaving = not self.alone
        self._known.clear()
        return self._is_leaving

    def of(self, endpoint: str, concurrency: int) -> Share:
        """This dispatcher's share of an endpoint with this many requests in flight."""
        if self._is_leaving:
            return Share(0, EVERY_STREAM)
        key = endpoint, concurrency
        if (share := self._known.get(key)) is None:
            share = self._known[key] = share_of(endpoint, concurrency, self._members, self._fleet.process)
        return share
