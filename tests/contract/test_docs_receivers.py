"""The receivers of docs/how-to/receive-and-verify.md handle every event once, whatever comes late, twice or again."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from standardwebhooks import Webhook

from relay.clock import SystemClock
from relay.config.endpoint import Endpoint, Retry
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.endpoint.route import Route, ping, post_sample
from relay.dispatch.http.outcome import Delivered
from relay.events.catalog import CATALOG
from relay.events.samples import SAMPLES
from relay.outbox.log.resends import Resend
from relay.outbox.operator.access import open_log
from tests.support.builders import a_record, durable, new_stream
from tests.support.cli import SECRET
from tests.support.dispatch.dispatching import counted, delivering
from tests.support.dispatch.receiver import Answer, Received, Receiver
from tests.support.outbox.outbox_store import Store, sqlite, until

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "receive-and-verify.md"
CLOCK = SystemClock()
QUICK = Retry(schedule=(timedelta(milliseconds=50),) * 40, park_after=timedelta(0), jitter=0)
STREAMS, LENGTH = 3, 12

Receive = Callable[[Mapping[str, str], bytes, Callable[[Any], None]], None]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite(tmp_path) as opened:
        opened.clock = CLOCK  # type: ignore[assignment]  # what is due is due
        yield opened


def blocks() -> list[str]:
    """The page's samples in Python."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Receive]:
    """The functions of the page, by name."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks():
        if "sqlite3" in block or "db.execute" in block:
            exec(block, names)  # the page's own code is what is tested
    return names


class Handled:
    """What a receiver has handled; its answers are lost, or it fails before it has done anything, now and then."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._tries = receive, Counter[str]()
        self.ids = Counter[str]()
        self.sent_again = Counter[str]()

    def __call__(self, request: Received) -> Answer:
        event_id, again = request.headers["webhook-id"], "relay-resend" in request.headers
        self._tries[event_id] += 1
        if not again and event_id.endswith(("_4", "_9")) and self._tries[event_id] <= 3:
            return Answer(500)  # long enough to be parked
        self._receive(request.headers, request.body, lambda event: self._handle(event["id"], again=again))
        # handled, and the relay does not learn it
        return Answer(500 if event_id.endswith("_6") and self._tries[event_id] == 1 else 200)

    def _handle(self, event_id: str, *, again: bool) -> None:
        (self.sent_again if again else self.ids)[event_id] += 1


async def send_all(store: Store, receiver: Receiver, handled: Handled, order: str) -> Dispatcher:
    """Every event arrives, and is sent again once all have."""
    receiver.answer = handled
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    crm = {"name": "crm", "url": receiver.url, "signing": "none", "events": ["*"], "retry": QUICK, "order": order}
    target = Endpoint.model_validate({**crm, "breaker": None})
    async with delivering(outbox, target, sweep_seconds=0.05) as dispatcher:
        for number in range(1, STREAMS + 1):
            log = await outbox.open_stream(new_stream(number))
            await log.append([durable(number, n, at=CLOCK.now_ms()) for n in range(1, LENGTH + 1)])
        await until(lambda: counted(dispatcher, "delivered") == STREAMS * LENGTH)
        while await outbox.lanes.unsettled() != {"crm": 0}:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        async with open_log(store.url, CLOCK) as operator:
            asked = Resend("crm", 0, CLOCK.now_ms() + 1, tuple(CATALOG))
            assert (await operator.redelivery.resend(asked, lambda *_: True)).events == STREAMS * LENGTH
        await until(lambda: counted(dispatcher, "delivered") == 2 * STREAMS * LENGTH)
    return dispatcher


async def test_discarding_by_id_loses_nothing_and_handles_nothing_twice(
    store: Store, receiver: Receiver, documented: dict[str, Receive]
) -> None:
    handled = Handled(documented["receive"])
    dispatcher = await send_all(store, receiver, handled, "park")
    assert counted(dispatcher, "parked") > 0, "some came late"
    assert len(handled.ids) == STREAMS * LENGTH
    assert set(handled.ids.values()) == {1}
    assert not handled.sent_again, "all of it was there"


async def test_a_receiver_that_lost_its_database_gets_all_of_it_by_a_resend(
    store: Store, receiver: Receiver, documented: dict[str, Receive], tmp_path: Path
) -> None:
    handled = Handled(documented["receive"])
    await send_all(store, receiver, handled, "park")
    documented["db"].execute("DELETE FROM seen")  # type: ignore[attr-defined]  # the page's connection
    documented["db"].commit()  # type: ignore[attr-defined]  # as above
    before = receiver.requests[-1]
    handled.ids.clear()
    for request in [r for r in receiver.requests if "relay-resend" in r.headers]:
        handled(request)
    assert len(handled.sent_again) == STREAMS * LENGTH
    assert set(handled.sent_again.values()) == {1}
    assert before.headers["relay-resend"] == "true"


async def test_discarding_by_sequence_is_right_in_strict_order(
    store: Store, receiver: Receiver, documented: dict[str, Receive]
) -> None:
    handled = Handled(documented["receive_in_order"])
    dispatcher = await send_all(store, receiver, handled, "strict")
    assert counted(dispatcher, "parked") == 0
    assert len(handled.ids) == STREAMS * LENGTH
    assert set(handled.ids.values()) == {1}
    assert set(handled.sent_again.values()) == {1}


async def test_discarding_by_sequence_loses_what_was_parked_as_the_page_says(
    store: Store, receiver: Receiver, documented: dict[str, Receive]
) -> None:
    handled = Handled(documented["receive_in_order"])
    await send_all(store, receiver, handled, "park")
    assert len(handled.ids) < STREAMS * LENGTH


@pytest.mark.parametrize("name", ["receive", "receive_in_order"])
async def test_a_ping_is_taken(receiver: Receiver, documented: dict[str, Receive], name: str) -> None:
    crm = Endpoint.model_validate({"name": "crm", "url": receiver.url, "signing": "none"})

    def answer(request: Received) -> Answer:
        documented[name](request.headers, request.body, lambda _: None)
        return Answer()

    receiver.answer = answer
    assert isinstance(await post_sample(crm, ping("crm", CLOCK.now_ms()), CLOCK.now_ms()), Delivered)


def test_ids_are_kept_for_as_long_as_an_event_may_come_again() -> None:
    defaults = Endpoint.model_validate({"name": "crm", "url": "https://x.test"})
    assert defaults.disable_after is not None
    schedule = sum(defaults.retry.schedule, timedelta()) * (1 + defaults.retry.jitter)
    days = re.search(r"may arrive again: (\w+) days", PAGE.read_text())
    assert days is not None
    assert schedule + defaults.disable_after <= timedelta(days={"four": 4, "ten": 10}[days[1]])


Verify = Callable[[bytes, Mapping[str, str]], Any]


@pytest.fixture(params=["verified", "verified_by_hand"])
def verified(request: pytest.FixtureRequest) -> Verify:
    """Each of the page's functions that verify, with a secret of ours."""
    (block,) = (each for each in blocks() if f"def {request.param}(" in each)
    names: dict[str, Any] = {}
    exec(block.replace("whsec_…", SECRET), names)  # the page's own code is what is tested
    return cast("Verify", names[request.param])


def signed(body: bytes, *, late_s: int = 0, secret: str = SECRET) -> dict[str, str]:
    at = datetime.now(UTC) - timedelta(seconds=late_s)
    signature = Webhook(secret).sign("evt_1", at, body.decode())
    return {
        "Webhook-Id": "evt_1",
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": signature,
    }


@pytest.mark.parametrize("body", [b'{"text": "h\xc3\xa9"}', b'{\r\n"text": "h\xc3\xa9"\r\n}\r\n'])
def test_what_the_relay_signed_is_verified_also_while_a_secret_is_rotated(verified: Verify, body: bytes) -> None:
    headers = signed(body)
    assert verified(body, headers) == {"text": "hé"}
    other = signed(body, secret="whsec_" + "QkJC" * 11)["Webhook-Signature"]
    for both in (f"{other} {headers['Webhook-Signature']}", f"{headers['Webhook-Signature']} {other}"):
        assert verified(body, {**headers, "Webhook-Signature": both}) == {"text": "hé"}


BODY = b'{"text": "so"}'


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{"text": "no"}', {}),
        (BODY + b"\n", {}),
        (b"\xff\xfe", {}),
        (BODY, signed(BODY, late_s=600)),
        (BODY, signed(BODY, late_s=-86_400)),  # signed when the tests are collected: the run may take a while
        (BODY, signed(BODY, secret="whsec_" + "QkJC" * 11)),
        *((BODY, {name: ""}) for name in ("Webhook-Id", "Webhook-Timestamp", "Webhook-Signature")),
        *((BODY, {"Webhook-Timestamp": odd}) for odd in ("nan", "1e999", "soon", "-1")),
        *((BODY, {"Webhook-Signature": odd}) for odd in ("v1", "v1,a,b", "v1,x", "v1,é", " ", ",", "v2,AAAA")),
    ],
)
def test_what_the_relay_did_not_sign_is_refused_and_never_an_error(
    verified: Verify, body: bytes, changed: dict[str, str]
) -> None:
    assert verified(body, {**signed(BODY), **changed}) is None
    assert verified(body, {}) is None


@pytest.mark.parametrize("name", ["transcript.final", "ping"])
def test_livekits_receiver_takes_the_body_as_the_page_gives_it(name: str) -> None:
    key = {"api_key": "APIkey", "api_secret": "a secret of more than thirty-two bytes"}
    to = Endpoint.model_validate({"name": "crm", "url": "https://x.test", "signing": "livekit", "livekit_key": key})
    body = SAMPLES[name].model_dump_json().encode()
    pairs = Route(to).headers(a_record(1, name), body, 0, CLOCK.now_ms())
    request = SimpleNamespace(headers={k.decode(): v.decode() for k, v in pairs})
    (block,) = (each for each in blocks() if "WebhookReceiver" in each)
    names: dict[str, Any] = {"body": body, "request": request, "json": json, "key": key["api_key"]}
    names["secret"] = key["api_secret"]
    exec(block, names)  # the page's own code is what is tested
    assert names["event"]["id"] == SAMPLES[name].id
