"""The outbox interface that dispatch needs, and nothing more."""

from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from relay.events.operator import DisabledBecause
from relay.outbox.records import (
    EndpointState,
    Health,
    Lane,
    ParkedEvent,
    ParkedSettlement,
    Record,
    Settlement,
    StreamShare,
)

_ALL: Mapping[str, StreamShare] = MappingProxyType({})


class LaneStore(Protocol):
    """The log's lanes, as a dispatcher sees them. Every method raises ``OutboxError`` if the log cannot be used."""

    async def sync_endpoints(self, names: Sequence[str]) -> None:
        """Make these the active endpoints. A new one gets a lane, starting now, for every open stream."""

    async def reclaim(self) -> None:
        """Reclaim at once what this dispatcher's name held before a restart."""

    async def free(self, owners: Collection[str]) -> None:
        """Make due at once what these dispatchers held: they have certainly ended."""

    async def claim(
        self, wants: Mapping[str, int], *, lease_ms: int, shares: Mapping[str, StreamShare] = _ALL
    ) -> list[Lane]:
        """Lease up to this many due lanes of each endpoint, in one transaction, longest due first.

        Of an endpoint with a share: lanes of the share's streams, and others only once they have been due for a while.
        """

    def read(self, stream: int, after: int, limit: int) -> Awaitable[list[Record]]:
        """The stream's events after ``after``, in order, at most ``limit``."""

    def settle(self, settlement: Settlement, *, awaited: bool = True) -> Awaitable[None]:
        """Record the result of a lane's head; done at the commit. Raises ``Fenced`` if the lane was lost.

        A settlement that is not awaited may be held back briefly, to be committed with others.
        """

    def hasten(self) -> None:
        """Commit at once what is held back to be batched."""

    async def renew(self, lanes: Iterable[tuple[int, int]], *, lease_ms: int) -> Collection[int]:
        """Renew the leases of (lane, fence) pairs. Those already lost stay lost: returns the other lanes."""

    async def release(self, lanes: Iterable[tuple[int, int]]) -> None:
        """Release (lane, fence) pairs: due at once if the stream has more, else idle until the next append."""

    async def claim_parked(
        self, wants: Mapping[str, int], *, lease_ms: int, shares: Mapping[str, StreamShare] = _ALL
    ) -> list[ParkedEvent]:
        """Lease up to this many due parked events of each endpoint, longest due first. ``shares``: as for lanes."""

    def settle_parked(self, settlement: ParkedSettlement) -> Awaitable[None]:
        """Record the result of a parked event; done at the commit. Raises ``Fenced`` if it was lost."""

    async def endpoint_states(self, names: Collection[str]) -> dict[str, EndpointState]:
        """Those of these endpoints that the log knows, by name, with their disabled or enabled state."""

    async def api_lanes(self, streams: Collection[int]) -> dict[int, list[str]]:
        """The endpoints made over the API that have a lane on each of these streams."""

    async def due_api_endpoints(self) -> tuple[set[str], set[str]]:
        """The endpoints made over the API that have due lanes, and those that have due parked events or resends."""

    async def note_health(self, health: Sequence[Health]) -> None:
        """Write the health of endpoints."""

    async def disable(self, endpoint: str, because: DisabledBecause) -> bool:
        """Disable the endpoint until it is enabled; False if it is already disabled.

        The other endpoints are notified in the same transaction.
        """

    async def recover(self, endpoint: str, *, since: int | None) -> int:
        """The endpoint has recovered: its waiting retries are due at once. Returns how many events.

        ``since`` is when it began to fail, if that was certainly an outage: everything that failed from then on is due.
        Without it, only what an outage may have failed. Held lanes and events are left alone.
        """

    async def shift(self, by_ms: int, *, beyond: int) -> None:
        """The wall clock was set: shift every scheduled time later than ``beyond`` by this much.

        Times that lie in the future without a reason (a due lane, a lease longer than the maximum) become now.
        """

    async def last_sequences(self, streams: Sequence[int]) -> dict[int, int]:
        """The newest sequence of each stream: the sweep compares them to detect lost rings."""
