"""Several dispatchers and producers on PostgreSQL, all of which may die or stop: nothing lost, nothing out of order,
nothing twice but what was in flight. ``make chaos`` runs it in full."""

from pathlib import Path

from tests.torture.chaos import SMALL, Chaos, report


async def test_a_fleet_delivers_every_event_in_order_whatever_dies_or_stops(tmp_path: Path) -> None:
    chaos = Chaos(SMALL, tmp_path)
    await chaos.run()
    for account in chaos.accounts:
        assert account.faults == [], report(chaos)
        assert account.events, "the log does not hold what was appended"
        assert not account.kept
    assert sum(chaos.acknowledged.values()) > 100
