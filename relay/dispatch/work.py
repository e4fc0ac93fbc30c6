"""What an endpoint's queue holds: a lane, with its next event, or a parked event. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, auto

from relay.dispatch.policy import Verdict
from relay.outbox.records import Attempt, ParkedSettlement, Record, Settlement


class Phase(Enum):
    """What a lane or a parked event is busy with. It does one thing at a time, which preserves a lane's order."""

    IDLE = auto()
    """Nothing to send, as far as is known."""
    READING = auto()
    """Catching up by a read of its own."""
    READY = auto()
    """In its endpoint's queue."""
    SENDING = auto()
    COMMITTING = auto()
    """The settlement is being committed to the log."""
    UNCOMMITTED = auto()
    """The log refused the settlement; the sweep tries again."""
    GONE = auto()
    """No longer held."""


class Work(ABC):
    """A claim of this process on events for one endpoint. The steps are the same for every kind: take the head, send
    it, decide, commit."""

    __slots__ = ("abort_interim", "attempts", "failing_since", "flush_commit", "lease_until", "pending", "phase")

    in_order: bool
    """Whether events wait behind the head: it is parked rather than retried for long."""
    resend: bool
    """Whether an operator asked for the event to be sent again."""

    def __init__(self, phase: Phase, *, attempts: int, failing_since: int | None, lease_until: int) -> None:
        self.phase = phase
        self.attempts, self.failing_since = attempts, failing_since
        """Failed attempts at the head, and when the first of them was, in epoch milliseconds."""
        self.lease_until = lease_until
        self.pending: Settlement | ParkedSettlement | None = None
        """The pending settlement, from the outcome until the commit."""
        self.abort_interim: Callable[[], None] | None = None
        """Limits the attempt in flight, if that sends an interim: called once a durable event waits behind it."""
        self.flush_commit: Callable[[], None] | None = None
        """Commits a batched settlement at once: called once any event waits for it."""

    @property
    @abstractmethod
    def lane_id(self) -> int:
        """The log's number of the lane to which the event belongs."""

    @property
    @abstractmethod
    def previous(self) -> int:
        """The sequence of the event that was sent before the head."""

    @abstractmethod
    def head(self, now_ms: int) -> tuple[Record | None, int, int]:
        """The event to send now, how many before it are skipped, and how many of these are outdated interims that the
        endpoint subscribes to. None if none is left, as far as is known."""

    @abstractmethod
    def conclude(
        self, record: Record, verdict: Verdict, tries: tuple[Attempt, ...], now_ms: int, reason: str = ""
    ) -> Settlement | ParkedSettlement:
        """Apply the decision on the head; returns the settlement for the log. ``reason`` is why it failed."""

    @abstractmethod
    def release(self, now_ms: int) -> Settlement | ParkedSettlement | None:
        """What the log must store when this is released and no attempt is under way."""

    @abstractmethod
    def may_have_more(self) -> bool:
        """Whether another event may follow the head."""

    @abstractmethod
    def durable_waits(self) -> bool:
        """Whether a durable event is known behind the head, which is being sent."""

    def expedite(self) -> None:
        """Shorten the current step if an event waits that must not wait for it."""
        if self.abort_interim is not None and self.durable_waits():
            self.abort_interim()
            self.abort_interim = None
        if self.flush_commit is not None and self.may_have_more():
            self.flush_commit()
            self.flush_commit = None
