"""What follows from an outcome. Pure: the time and the dice are passed in."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_base, wait_chain, wait_fixed

from relay.config.models import Retry
from relay.dispatch.outcome import Delivered, Failed, Fault, Outcome

RETRY_AFTER_LIMIT_MS = 3_600_000
"""A ``Retry-After`` beyond this is taken for this."""
_ASKS_TO_WAIT = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Settle:
    """The event is done with and the next may follow."""

    delivered: bool
    """False for an interim that was tried once and did not arrive."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The same event again, not before then."""

    at: int
    """Wall time in epoch milliseconds."""
    attempts: int
    """Failed attempts so far, for the record."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The schedule is used up: the event is kept aside and the next may follow."""

    attempts: int
    reason: str


Verdict = Settle | RetryAt | Dead


def decide(
    outcome: Outcome,
    *,
    attempts: int,
    now_ms: int,
    retry: Retry,
    once: bool = False,
    dice: Callable[[], float] = random.random,
) -> Verdict:
    """Settle, retry or give up.

    ``attempts`` are the event's failed attempts before this one, ``once`` marks an event that is never retried (an
    interim), ``dice`` gives numbers in [0, 1) that the jitter is made of.
    """
    match outcome:
        case Delivered():
            return Settle(delivered=True)
        case _ if once:
            return Settle(delivered=False)
        case Fault():
            return RetryAt(now_ms + _wait_ms(retry, 1, dice), attempts)
        case Failed():
            number = attempts + 1
            if number > len(retry.schedule):
                return Dead(number, outcome.reason)
            wait = _wait_ms(retry, number, dice)
            if outcome.status in _ASKS_TO_WAIT and outcome.retry_after:
                asked = parse_retry_after(outcome.retry_after, now_ms)
                wait = max(wait, min(asked, RETRY_AFTER_LIMIT_MS))
            return RetryAt(now_ms + wait, number)


def parse_retry_after(value: str, now_ms: int) -> int:
    """How long a ``Retry-After`` header asks to wait, in milliseconds: 0 where it is past or not understood."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return int(value[:12]) * 1000
    try:
        date = parsedate_to_datetime(value)
        return max(0, round(date.replace(tzinfo=date.tzinfo or UTC).timestamp() * 1000) - now_ms)
    except (ValueError, OverflowError):
        return 0


class _Varied(wait_base):
    """Another strategy's wait, up to a share of itself longer or shorter. tenacity's own jitters only ever add."""

    def __init__(self, wait: wait_base, share: float, dice: Callable[[], float]) -> None:
        self._wait, self._share, self._dice = wait, share, dice

    def __call__(self, retry_state: RetryCallState) -> float:
        return self._wait(retry_state) * (1 + self._share * (2 * self._dice() - 1))


def _wait_ms(retry: Retry, number: int, dice: Callable[[], float]) -> int:
    """The wait after the ``number``-th failed attempt. An empty schedule waits a second (only our faults get here)."""
    steps = [wait_fixed(step) for step in retry.schedule] or [wait_fixed(1)]
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = number
    return round(_Varied(wait_chain(*steps), retry.jitter, dice)(state) * 1000)
