"""Decides what follows from an outcome. Pure: the time and the random numbers are passed in."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, auto

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_base, wait_chain, wait_fixed

from relay.config.endpoint import Breaker, Retry
from relay.dispatch.http.outcome import Delivered, Failed, Fault, Outcome

RETRY_AFTER_LIMIT_MS = 3_600_000
"""A longer ``Retry-After`` is cut to this."""
REST_MS = round(Breaker().rest.total_seconds() * 1000)
"""The longest wait during an outage of an endpoint without a breaker."""
_SOON_MS = 1000
"""The longest wait after an outage that is over."""
_ASKS_TO_WAIT = frozenset({429, 503})


class Blame(Enum):
    """What a failed attempt says about the event and its endpoint."""

    EVENT = auto()
    """The endpoint accepted others at the time: it rejects this event."""
    UNKNOWN = auto()
    """Nothing else was tried: the event or the endpoint may be at fault."""
    ENDPOINT = auto()
    """The endpoint accepts nothing: an outage."""
    PAST = auto()
    """The attempt began in an outage that is over by now."""


@dataclass(frozen=True, slots=True)
class Settle:
    """The event is finished and the next may follow."""

    delivered: bool
    """False for an interim whose only attempt failed."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Retry the same event, not before this time."""

    at: int
    """Wall time in epoch milliseconds."""
    attempts: int
    """Failed attempts so far, for the record."""
    failing_since: int | None = None
    """When the first of them was, in epoch milliseconds."""
    outage: bool = False
    """Whether the endpoint may have been at fault: its recovery then makes the event due immediately."""
    asked: bool = False
    """Whether the endpoint asked for the wait: nothing shortens it then."""


@dataclass(frozen=True, slots=True)
class Park:
    """The event is parked and retried separately; the next may follow."""

    retry_at: int
    attempts: int
    reason: str
    outage: bool = False
    """As in ``RetryAt``, like the next field."""
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """The schedule is exhausted: the event becomes a dead letter and the next may follow."""

    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class Disable:
    """The endpoint reports that it is gone: nothing more is sent to it. The event stays in place, and the attempt is
    not counted."""

    reason: str


_DELIVERED = Settle(delivered=True)

Verdict = Settle | RetryAt | Park | Dead | Disable


def decide(
    outcome: Outcome,
    *,
    attempts: int,
    now_ms: int,
    retry: Retry,
    failing_since: int | None,
    parks: bool,
    best_effort: bool,
    blame: Blame,
    rest_ms: int,
    dice: Callable[[], float],
) -> Verdict:
    """Settle, retry, park, give up, or stop sending to the endpoint.

    ``attempts`` is the event's number of failed attempts before this one; ``failing_since`` is the time of the first.
    ``best_effort`` marks an event that is never retried (an interim). ``blame`` says whether the event or its endpoint
    failed. ``dice`` returns numbers in [0, 1) for the jitter.

    During an outage of its endpoint an event is never parked, and is retried after ``rest_ms`` at the latest: the first
    attempt to succeed shows that the endpoint has recovered. Only the steps of the schedule that are shorter than
    ``rest_ms`` are used up.

    With ``parks``, an event that has failed for ``retry.park_after`` no longer blocks the events behind it. A retry
    scheduled after that moment is moved to it, so that the decision is made then; the event is parked earlier only if
    the endpoint itself asked for a longer wait. Beside a healthy endpoint, no lane is therefore blocked for longer than
    ``park_after`` plus one attempt.
    """
    match outcome:
        case Delivered():
            return _DELIVERED
        case Failed(status=410):
            return Disable(outcome.reason)
        case _ if best_effort:
            return Settle(delivered=False)
        case Fault():
            return RetryAt(now_ms + _Waits(retry, dice).after(1), attempts, failing_since)
        case Failed():
            pass
    number, since = attempts + 1, now_ms if failing_since is None else failing_since
    asked = _asked_ms(outcome, now_ms)
    parks_at = since + round(retry.park_after.total_seconds() * 1000) if parks else None
    waits, outage = _Waits(retry, dice), blame is not Blame.EVENT
    if blame in (Blame.ENDPOINT, Blame.PAST):
        most = rest_ms if blame is Blame.ENDPOINT else _SOON_MS
        if waits.step_ms(number) > most or (parks_at is not None and now_ms >= parks_at):
            number = max(1, attempts)
        if number <= len(retry.schedule) or number == attempts:
            at = now_ms + max(min(waits.after(attempts + 1), most), asked)
            return RetryAt(at, number, since, outage=True, asked=asked > 0)
    if number > len(retry.schedule):
        return Dead(number, outcome.reason)
    at = now_ms + max(waits.after(number), asked)
    if parks_at is None or at <= parks_at:
        return RetryAt(at, number, since, outage, asked > 0)
    if now_ms >= parks_at or now_ms + asked > parks_at:
        return Park(at, number, outcome.reason, outage, asked > 0)
    return RetryAt(parks_at, number, since, outage, asked > 0)


def _asked_ms(outcome: Failed, now_ms: int) -> int:
    """How long the endpoint asks for no requests, in milliseconds."""
    if outcome.status not in _ASKS_TO_WAIT or not outcome.retry_after:
        return 0
    return min(parse_retry_after(outcome.retry_after, now_ms), RETRY_AFTER_LIMIT_MS)


def parse_retry_after(value: str, now_ms: int) -> int:
    """The wait that a ``Retry-After`` header asks for, in milliseconds: 0 if it is past or not understood."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return int(value[:12]) * 1000
    try:
        date = parsedate_to_datetime(value)
        return max(0, round(date.replace(tzinfo=date.tzinfo or UTC).timestamp() * 1000) - now_ms)
    except (ValueError, OverflowError):
        return 0


class _Varied(wait_base):
    """Another strategy's wait, made longer or shorter by up to a share of itself. tenacity's own jitters only add."""

    def __init__(self, wait: wait_base, share: float, dice: Callable[[], float]) -> None:
        self._wait, self._share, self._dice = wait, share, dice

    def __call__(self, retry_state: RetryCallState) -> float:
        return self._wait(retry_state) * (1 + self._share * (2 * self._dice() - 1))


class _Waits:
    """The waits of a schedule, in milliseconds. An empty one waits a second: after our own faults, and in outages."""

    def __init__(self, retry: Retry, dice: Callable[[], float]) -> None:
        self._steps = wait_chain(*([wait_fixed(step) for step in retry.schedule] or [wait_fixed(1)]))
        self._varied = _Varied(self._steps, retry.jitter, dice)

    def step_ms(self, number: int) -> int:
        """The schedule's wait after the ``number``-th failed attempt; past its end, the last one."""
        return _wait_ms(self._steps, number)

    def after(self, number: int) -> int:
        """The same with jitter."""
        return _wait_ms(self._varied, number)


def _wait_ms(waits: wait_base, number: int) -> int:
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = number
    return round(waits(state) * 1000)
