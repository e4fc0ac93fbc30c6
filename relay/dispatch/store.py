"""What dispatch needs of the outbox, and nothing more."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Protocol

from relay.events.operator import DisabledBecause
from relay.outbox.records import EndpointState, Health, Lane, ParkedEvent, ParkedSettlement, Record, Settlement


class LaneStore(Protocol):
    """The log's lanes, as a dispatcher sees them. Every method raises ``OutboxError`` when the log cannot be used."""

    async def sync_endpoints(self, names: Sequence[str]) -> None:
        """Make these the active endpoints. A new one gets a lane, from now on, for every stream that is open."""

    async def reclaim(self) -> None:
        """Take back at once what this dispatcher's name held before it was restarted."""

    async def claim(self, wants: Mapping[str, int], *, lease_ms: int) -> list[Lane]:
        """Lease up to so many due lanes of each endpoint, in one transaction, longest due first."""

    def read(self, stream: int, after: int, limit: int) -> Awaitable[list[Record]]:
        """The stream's events behind ``after``, in order, at most ``limit``."""

    def settle(self, settlement: Settlement, *, awaited: bool = True) -> Awaitable[None]:
        """Write down what became of a lane's head; done at the commit. Raises ``Fenced`` if the lane was lost.

        One that is not awaited may be kept for a moment, to be committed with others.
        """

    def hasten(self) -> None:
        """A settlement that was not awaited is now."""

    async def renew(self, lanes: Iterable[tuple[int, int]], *, lease_ms: int) -> None:
        """Prolong the leases of (lane, fence) pairs; those already lost stay lost."""

    async def release(self, lanes: Iterable[tuple[int, int]]) -> None:
        """Let (lane, fence) pairs go: due at once where the stream has more, else idle until the next append."""

    async def claim_parked(self, wants: Mapping[str, int], *, lease_ms: int) -> list[ParkedEvent]:
        """Lease up to so many parked events of each endpoint that are due, longest due first."""

    def settle_parked(self, settlement: ParkedSettlement) -> Awaitable[None]:
        """Write down what became of a parked event; done at the commit. Raises ``Fenced`` if it was lost."""

    async def endpoint_states(self) -> dict[str, EndpointState]:
        """Every endpoint that the log knows, by name: who was disabled or enabled by whomever."""

    async def note_health(self, health: Sequence[Health]) -> None:
        """Write down how endpoints are doing."""

    async def disable(self, endpoint: str, because: DisabledBecause) -> bool:
        """Send nothing to it any more, until it is enabled; False where it is disabled already.

        Tells the other endpoints in the same transaction.
        """

    async def recover(self, endpoint: str, *, since: int | None) -> int:
        """The endpoint takes events again: what waits to be tried again for it is due at once; how many events.

        ``since`` is when it began to fail, where that was an outage for certain: all that has failed from then on is
        due. Without it, only what an outage may have failed. What somebody holds is left alone.
        """

    async def shift(self, by_ms: int, *, beyond: int) -> None:
        """The wall clock was set: move every time of the schedule that is later than ``beyond`` by so much.

        Times that lie in the future and have no reason to (a lane that is due, a lease longer than any) become now.
        """

    async def last_sequences(self, streams: Sequence[int]) -> dict[int, int]:
        """The newest sequence of each stream: what the sweep compares with, should a ring have been lost."""
