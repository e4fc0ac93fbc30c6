"""Several dispatchers and producers on PostgreSQL, all of which may die or stop: nothing lost, nothing out of order,
nothing twice but what was in flight. ``make chaos`` runs it in full."""

import random
from pathlib import Path

import pytest

from tests.torture.chaos import SMALL, Chaos, report
from tests.torture.disruptions import Disruption, Target, explained


async def test_a_fleet_delivers_every_event_in_order_whatever_dies_or_stops(tmp_path: Path) -> None:
    chaos = Chaos(SMALL, tmp_path)
    await chaos.run()
    lanes = chaos.plan.producers * chaos.plan.streams
    for account in chaos.accounts:
        # a busy machine, too, lets leases of 4 s run out: which disruption a duplicate is of, `make chaos` tells
        assert [fault for fault in account.faults if "account for it" not in fault] == [], report(chaos)
        assert account.duplicates <= len(chaos.disruptions) * lanes, "one of each lane is in flight"
        assert account.events, "the log does not hold what was appended"
        assert not account.kept
    assert sum(chaos.acknowledged.values()) > 100


@pytest.mark.parametrize(
    ("disruption", "accounted_for"),
    [
        (Disruption("kill", "d1", 10.5, 10.6), 1),
        (Disruption("crash", None, 9, 9.5), 1),
        (Disruption("kill", "d2", 10.5, 10.6), 0),
        (Disruption("kill", "d1", 20, 21), 0),
    ],
    ids=["its dispatcher's", "the database's", "another dispatcher's", "long after"],
)
def test_a_disruption_accounts_for_one_duplicate_of_a_lane(disruption: Disruption, accounted_for: int) -> None:
    target = Target("steady", 1, random.Random(1))
    for event in ("evt_A_1", "evt_A_2"):
        target.taken_from[event] = [(10.0, "d1"), (11.0, "d2")]
    (found,) = explained([target], [disruption])
    assert len(found["steady"].events) == accounted_for
