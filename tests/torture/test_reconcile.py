"""The reconciliation finds what it is there to find."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.clock import SystemClock
from relay.ids import event_id
from relay.outbox.outbox import Outbox
from relay.outbox.records import Settlement
from tests.support.builders import new_stream, run, stream_id
from tests.torture.receivers import Endpoint
from tests.torture.reconcile import Unsettled, reconcile, unsettled

EVENTS = [event_id(stream_id(1), sequence) for sequence in range(1, 5)]


def took(*sequences: int) -> Endpoint:
    endpoint = Endpoint("crm", 1, random.Random(1))
    for sequence in sequences:
        endpoint.came.append((EVENTS[sequence - 1], True))
        endpoint.taken[EVENTS[sequence - 1]] += 1
    return endpoint


async def log_settled_up_to(database: Path, cursor: int) -> None:
    outbox = await Outbox.open(f"sqlite:///{database}", name="relay", clock=SystemClock())
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream(1))
    await log.append(run(1, 1, 4))
    (lane,) = await outbox.lanes.claim({"crm": 1}, lease_ms=1000)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, cursor, cursor, 0))
    await outbox.aclose()


@pytest.mark.parametrize(
    ("endpoint", "kill", "faults"),
    [
        (lambda: took(1, 2, 3), [], []),
        (lambda: took(1, 3), [], [f"lost: {EVENTS[1]}"]),
        (lambda: took(1, 3, 2), [], [f"out of order: {EVENTS[1]} came after 3"]),
        (lambda: took(1, 2, 2, 3), [], [f"{EVENTS[1]} came 2 times, 0 kills account for it"]),
        (lambda: took(1, 2, 2, 3), [EVENTS[1]], []),
        (lambda: took(1, 2, 2, 2, 3), [EVENTS[1]], [f"{EVENTS[1]} came 3 times, 1 kills account for it"]),
        (
            lambda: took(1, 2, 3),
            EVENTS[1:3],
            [f"a kill left {(EVENTS[1], EVENTS[2])} of one lane unsettled, of which came {EVENTS[:3]}"] * 2,
        ),
    ],
    ids=[
        "all is well",
        "lost",
        "out of order",
        "twice for no reason",
        "twice for a kill",
        "thrice for a kill",
        "two of a lane",
    ],
)
async def test_what_must_not_be_is_found(
    tmp_path: Path, endpoint: Callable[[], Endpoint], kill: list[str], faults: list[str]
) -> None:
    await log_settled_up_to(tmp_path / "relay.db", 3)
    kills = [{"crm": Unsettled(frozenset((event, 1) for event in kill), tuple(kill))}] * 2
    (account,) = reconcile(tmp_path / "relay.db", [endpoint()], kills, {stream_id(1): 4})
    assert account.faults == faults
    assert (account.events, account.kept) == (4, 1)


async def test_an_acknowledged_event_that_the_log_has_not_is_found(tmp_path: Path) -> None:
    await log_settled_up_to(tmp_path / "relay.db", 3)
    (account,) = reconcile(tmp_path / "relay.db", [took(1, 2, 3)], [], {stream_id(1): 5})
    assert account.faults == [f"{stream_id(1)}: 5 events were acknowledged, the log has 4"]


async def test_what_was_taken_and_is_not_settled_is_what_a_kill_may_repeat(tmp_path: Path) -> None:
    await log_settled_up_to(tmp_path / "relay.db", 1)
    found = unsettled(tmp_path / "relay.db", [took(1, 2)])
    assert found == {"crm": Unsettled(frozenset({(EVENTS[1], 1)}), (EVENTS[1],))}
