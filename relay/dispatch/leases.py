"""Decides what a sweep does about each lease. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from relay.dispatch.lanes import HeldLane
from relay.dispatch.work import Phase

MARGIN_MS = 1000
"""A POST starts only if the lease outlasts its deadline by this much."""


@dataclass(slots=True)
class Plan:
    """Lanes to renew and lanes to release."""

    renew: list[HeldLane] = field(default_factory=list)
    release: list[HeldLane] = field(default_factory=list)


def lease_ms_for(longest_timeout: float) -> int:
    """The lease length if no attempt takes longer than ``longest_timeout`` seconds: three of them, at least 45 s.

    It is renewed at half time, and then still outlasts an attempt.
    """
    return max(45_000, round(longest_timeout * 3000) + MARGIN_MS)


def outlasts_attempt(lease_until: int, timeout: float, now_ms: int) -> bool:
    """Whether the lease is certain to last until the end of an attempt of ``timeout`` seconds that begins now."""
    return lease_until - now_ms >= timeout * 1000 + MARGIN_MS


def plan(lanes: Iterable[HeldLane], now_ms: int, *, lease_ms: int, linger_ms: int) -> Plan:
    """Renew at half time; release what has been idle for ``linger_ms``, or is idle and another dispatcher's share, and
    what is already lost.

    An expired lease is never renewed: another dispatcher may hold the lane by now.
    """
    result = Plan()
    for lane in lanes:
        resting = lane.phase in (Phase.IDLE, Phase.READY, Phase.UNCOMMITTED)
        if (lane.lease_until <= now_ms and resting) or (
            lane.phase is Phase.IDLE
            and not lane.may_have_unread()
            and (lane.used_at + linger_ms <= now_ms or not lane.is_own())
        ):
            result.release.append(lane)
        elif now_ms < lane.lease_until < now_ms + lease_ms // 2:
            result.renew.append(lane)
    return result
