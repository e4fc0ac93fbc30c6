"""What dispatch needs of the outbox, and nothing more."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Protocol

from relay.outbox.records import Lane, Logged, Settlement


class LaneStore(Protocol):
    """The log's lanes, as a dispatcher sees them. Every method raises ``OutboxError`` when the log cannot be used."""

    async def sync_endpoints(self, names: Sequence[str]) -> None:
        """Make these the active endpoints. A new one gets a lane, from now on, for every stream that is open."""

    async def reclaim(self) -> None:
        """Take back at once what this dispatcher's name held before it was restarted."""

    async def claim(self, wants: Mapping[str, int], *, lease_ms: int) -> list[Lane]:
        """Lease up to so many due lanes of each endpoint, in one transaction, longest due first."""

    def read(self, stream: int, after: int, limit: int) -> Awaitable[list[Logged]]:
        """The stream's events behind ``after``, in order, at most ``limit``."""

    def settle(self, settlement: Settlement) -> Awaitable[None]:
        """Write down what became of a lane's head; done at the commit. Raises ``Fenced`` if the lane was lost."""

    async def renew(self, lanes: Iterable[tuple[int, int]], *, lease_ms: int) -> None:
        """Prolong the leases of (lane, fence) pairs; those already lost stay lost."""

    async def release(self, lanes: Iterable[tuple[int, int]]) -> None:
        """Let (lane, fence) pairs go: due at once where the stream has more, else idle until the next append."""

    async def last_sequences(self, streams: Sequence[int]) -> dict[int, int]:
        """The newest sequence of each stream: what the sweep compares with, should a ring have been lost."""
