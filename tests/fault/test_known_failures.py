"""What users of other webhook systems complained of most, each as a test that would fail if it happened here.

The rest of that list stands beside what it is about: the crash between commit and queue in test_outbox_processes.py,
the frozen dispatcher in test_zombie.py, the full disk in test_store_disk.py; in tests/contract, hostile receivers and
cancelled requests in test_dispatch_transport.py, names that are rebound in test_dispatch_addresses.py; in tests/unit,
addresses that must not be dialled in test_dispatch_egress.py, a clock that jumps in test_dispatch_clock.py, endpoints
that fail steadily and those that fail at times in test_dispatch_endpoint_sync.py; and everything at once in
tests/torture.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.config.endpoint import Endpoint, Retry
from relay.dispatch.http.outcome import Failed
from relay.dispatch.policy import Dead, RetryAt
from relay.outbox.operator.access import open_log
from relay.outbox.operator.redelivery import Retried
from relay.outbox.outbox import Outbox
from tests.support import builders
from tests.support.builders import durable, new_stream, run
from tests.support.dispatch.receiver import Answer, Received, Receiver
from tests.support.dispatch.verdicts import decide
from tests.support.outbox.outbox_store import until

CLOCK = SystemClock()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


@pytest.fixture
async def outbox(database: Path) -> AsyncIterator[Outbox]:
    opened = await Outbox.open(url(database), name="relay", clock=CLOCK)
    yield opened
    await opened.aclose()


def url(database: Path) -> str:
    return f"sqlite:///{database}"


def endpoint(receiver: Receiver, name: str = "crm", **more: Any) -> Endpoint:
    retry = {"schedule": ["100ms"] * 300}
    return builders.endpoint(name, **{"url": f"{receiver.url}/{name}", "breaker": None, "retry": retry, **more})


def came(receiver: Receiver, name: str = "crm") -> list[int]:
    """The sequences that one endpoint was sent, in order."""
    return [one.json()["stream"]["sequence"] for one in receiver.requests if one.path == f"/{name}"]


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as log:
        return log.execute(query).fetchall()


async def test_what_a_dead_dispatcher_held_is_not_in_limbo_until_a_restart(
    outbox: Outbox, receiver: Receiver, database: Path
) -> None:
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 3))
    other = await Outbox.open(url(database), name="dead", clock=CLOCK)
    assert len(await other.lanes.claim({"crm": 10}, lease_ms=1500)) == 1, (
        "another dispatcher must get what a dead one held"
    )
    await other.aclose()  # and never comes back
    async with delivering(outbox, [endpoint(receiver)], CLOCK, grace_s=5):
        await receiver.wait(3)
    assert came(receiver) == [1, 2, 3], "events of a dead dispatcher must be sent without a restart, once and in order"


async def test_events_of_a_disabled_endpoint_do_not_vanish(outbox: Outbox, receiver: Receiver, database: Path) -> None:
    async with (
        delivering(outbox, [endpoint(receiver), endpoint(receiver, "other")], CLOCK, grace_s=5),
        open_log(url(database), CLOCK) as operator,
    ):
        await until(lambda: len(rows(database, "SELECT 1 FROM endpoints")) == 2)
        log = await outbox.open_stream(new_stream())
        await log.append(run(1, 1, 2))
        await receiver.wait(4)
        await operator.endpoints.disable("crm", "operator")
        held = "SELECT 1 FROM lanes WHERE endpoint = 'crm' AND owner IS NOT NULL"
        await until(lambda: not rows(database, held))
        await log.append(run(1, 3, 7))
        await receiver.wait_for(lambda: 7 in came(receiver, "other"))
        assert came(receiver) == [1, 2], "a disabled endpoint must get nothing"
        await operator.endpoints.enable("crm", replay=True)
        await receiver.wait_for(lambda: 7 in came(receiver))
    assert came(receiver) == [1, 2, 3, 4, 5, 6, 7], (
        "what came while the endpoint was disabled must be sent once it is enabled"
    )


def test_a_4xx_does_not_fill_the_dead_letters_while_somebody_repairs_the_endpoint() -> None:
    now, attempts, not_found = 0, 0, Failed("status", 1.0, status=404)
    while True:
        verdict = decide(not_found, attempts=attempts, now_ms=now, retry=Retry(), dice=lambda: 0.5)
        if isinstance(verdict, Dead):
            break
        assert isinstance(verdict, RetryAt)
        now, attempts = verdict.at, verdict.attempts
    assert attempts + 1 == len(Retry().schedule) + 1
    assert timedelta(milliseconds=now) > timedelta(days=3), "a 4xx must be retried for days before it is a dead letter"


async def test_an_endpoint_that_answers_404_until_it_is_deployed_gets_everything_in_order(
    outbox: Outbox, receiver: Receiver, database: Path
) -> None:
    deployed = False
    receiver.answer = lambda _: Answer(200 if deployed else 404)
    async with delivering(outbox, [endpoint(receiver)], CLOCK, grace_s=5):
        await until(lambda: bool(rows(database, "SELECT 1 FROM endpoints")))
        log = await outbox.open_stream(new_stream())
        await log.append(run(1, 1, 4))
        await receiver.wait(5)
        assert set(came(receiver)) == {1}
        deployed = True
        await receiver.wait_for(lambda: 4 in came(receiver))
    assert rows(database, "SELECT * FROM dead_letters") == [], "a 404 before the deployment must make no dead letter"
    assert sorted(came(receiver)) == came(receiver), "events must arrive in order"


async def test_one_endpoint_that_hangs_does_not_starve_the_rest(
    outbox: Outbox, receiver: Receiver, database: Path
) -> None:
    streams, events, healthy = 20, 2, [f"healthy-{number}" for number in range(50)]
    release = asyncio.Event()

    async def answer(request: Received) -> Answer:
        if request.path == "/hanging":
            await release.wait()
        return Answer(204)

    receiver.answer = answer
    targets = [endpoint(receiver, "hanging", timeout="90s"), *(endpoint(receiver, name) for name in healthy)]
    # as many at once as the one that hangs may have in flight: all of them would be its
    async with delivering(outbox, targets, CLOCK, grace_s=5, concurrency=16):
        await until(lambda: len(rows(database, "SELECT 1 FROM endpoints")) == len(targets))
        logs = [await outbox.open_stream(new_stream(number)) for number in range(streams)]
        await asyncio.gather(*(log.append(run(number, 1, events)) for number, log in enumerate(logs)))
        await receiver.wait_for(
            lambda: all(len(came(receiver, name)) == streams * events for name in healthy), within=60
        )
        release.set()


async def test_an_event_does_not_inherit_the_backoff_of_the_one_that_it_waited_for(
    outbox: Outbox, receiver: Receiver, database: Path
) -> None:
    tried: list[int] = []

    def answer(request: Received) -> Answer:
        tried.append(request.json()["stream"]["sequence"])
        return Answer(500 if tried.count(tried[-1]) <= 2 else 204)

    receiver.answer = answer
    slow = {"schedule": ["50ms", "50ms", "1h", "1h"]}
    async with delivering(outbox, [endpoint(receiver, retry=slow)], CLOCK, grace_s=5):
        await until(lambda: bool(rows(database, "SELECT 1 FROM endpoints")))
        log = await outbox.open_stream(new_stream())
        await log.append(run(1, 1, 5))
        await receiver.wait_for(lambda: tried.count(5) == 3)
    assert tried == [sequence for sequence in range(1, 6) for _ in range(3)], (
        "each event must have its own attempts, from the first wait on"
    )


async def test_a_slow_answer_is_not_taken_for_none_and_asked_for_again(
    outbox: Outbox, receiver: Receiver, database: Path
) -> None:
    receiver.answer = lambda _: Answer(after=2.5)
    async with delivering(outbox, [endpoint(receiver, timeout="10s")], CLOCK, grace_s=5):
        await until(lambda: bool(rows(database, "SELECT 1 FROM endpoints")))
        log = await outbox.open_stream(new_stream())
        await log.append([durable(1, 1)])
        await receiver.wait_for(lambda: bool(receiver.answered))
    assert came(receiver) == [1], "a slow answer must not cause a second request"


async def test_a_manual_retry_that_races_with_others_and_with_the_dispatcher_sends_once(
    outbox: Outbox, receiver: Receiver, database: Path
) -> None:
    answers = asyncio.Event()
    receiver.answer = lambda _: Answer(500)
    async with (
        delivering(outbox, [endpoint(receiver, retry={"schedule": []})], CLOCK, grace_s=5),
        open_log(url(database), CLOCK) as operator,
    ):
        await until(lambda: bool(rows(database, "SELECT 1 FROM endpoints")))
        log = await outbox.open_stream(new_stream())
        event = durable(1, 1)
        await log.append([event])
        await until(lambda: bool(rows(database, "SELECT 1 FROM dead_letters")))

        async def held(_: Received) -> Answer:
            await answers.wait()
            return Answer(204)

        receiver.answer = held
        asked = await asyncio.gather(*(operator.redelivery.retry(event.id, "crm") for _ in range(5)))
        assert asked.count(Retried.REVIVED) == 1, "one request must revive the event, and the others must be told so"
        assert set(asked) <= {Retried.REVIVED, Retried.HASTENED, Retried.UNDER_WAY}
        await receiver.wait(2)
        assert {await operator.redelivery.retry(event.id, "crm") for _ in range(5)} == {Retried.UNDER_WAY}
        answers.set()
        await until(lambda: not rows(database, "SELECT 1 FROM parked"))
        assert await operator.redelivery.retry(event.id, "crm") is Retried.SETTLED
        await log.append([durable(1, 2)])
        await receiver.wait_for(lambda: 2 in came(receiver))
    assert came(receiver) == [1, 1, 2], "a retried event must be sent once more, however often a retry is asked for"
