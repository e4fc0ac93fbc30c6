"""Everything at once, as on the worst of days: nothing lost, nothing out of order, nothing twice but what a kill
accounts for. ``make torture`` runs it in full."""

from pathlib import Path

from tests.torture.harness import Torture
from tests.torture.reconcile import table
from tests.torture.size import SMALL


async def test_nothing_is_lost_and_order_holds_while_the_dispatcher_is_killed_repeatedly(tmp_path: Path) -> None:
    torture = Torture(SMALL, tmp_path)
    await torture.run()
    for account in torture.accounts:
        assert account.faults == [], table(torture.accounts)
        assert account.events >= SMALL.events, "the log does not hold what was appended"
    kept = {account.endpoint: account.kept for account in torture.accounts if account.kept}
    assert set(kept) == {"hanging"}
    assert sum(torture.deaths.values()) == SMALL.kills + 4 * SMALL.commits
