"""The beginnings of answers, kept with their attempts where the endpoint allows it."""

from pathlib import Path

import httpx
import pytest

from relay.clock import SystemClock
from relay.dispatch.http.outcome import Failed
from relay.dispatch.http.transport import ANSWER_KEPT, open_transport
from relay.ids import event_id
from relay.outbox.operator.access import open_log
from relay.outbox.schema import answers
from tests.support.api import serving
from tests.support.builders import endpoint, new_stream, run, stream_id
from tests.support.dispatch.dispatching import delivering
from tests.support.dispatch.receiver import Answer, Receiver
from tests.support.outbox.outbox_store import Store, rows

EVENT = event_id(stream_id(1), 1)
BODY = b'{"error": "no such customer"}\x1b[31m\r\n\xff'
SHOWN = '{"error": "no such customer"}\\x1b[31m\\r\n\ufffd'


@pytest.mark.parametrize("size", [0, 10, ANSWER_KEPT, 5000, 100_000])
async def test_no_more_than_the_beginning_of_an_answer_is_kept(receiver: Receiver, size: int) -> None:
    receiver.answer = lambda _: Answer(500, body=b"x" * size)
    kept, not_kept = endpoint(url=receiver.url, keep_answers=True), endpoint(url=receiver.url)
    for config in (kept, not_kept, kept):
        transport = open_transport(config)
        for _ in range(2):  # the second on the same connection, where it could be kept
            outcome = await transport.post(httpx.URL(receiver.url), [], b"{}", 10)
            assert isinstance(outcome, Failed)
            assert outcome.status == 500
            assert outcome.answer == (b"x" * min(size, ANSWER_KEPT) if config is kept else None)
        await transport.aclose()


async def test_an_answer_is_shown_with_its_attempt_and_removed_with_it(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(422, body=BODY)
    keeping = endpoint(url=receiver.url, keep_answers=True, events=["stt.*"], retry={"schedule": []})
    silent = endpoint("bi", url=receiver.url, events=["stt.*"], retry={"schedule": []})
    async with serving(tmp_path, [keeping, silent]) as api:
        log = await api.outbox.open_stream(new_stream())
        async with delivering(api.outbox, keeping, silent):
            await log.append(run(1, 1, 1))
            await receiver.wait(2)
        shown = (await api.get(f"/v1/deliveries/{EVENT}")).json()["attempts"]
        assert {each["endpoint"]: each["answer"] for each in shown} == {"crm": SHOWN, "bi": None}
        await api.log.purge.room("room")
        assert await rows(api.outbox, answers) == []


async def test_an_answer_that_was_taken_is_kept_until_the_retention_is_over(store: Store, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(200, body=b"thanks")
    store.clock = SystemClock()  # type: ignore[assignment]  # real time: what is due is due
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    async with delivering(outbox, endpoint(url=receiver.url, keep_answers=True)):
        log = await outbox.open_stream(new_stream())
        await log.append(run(1, 1, 1))
        await receiver.wait(1)
    async with open_log(store.url, SystemClock()) as opened:
        found = await opened.inspection.delivery(EVENT)
        assert found is not None
        assert [each.answer for each in found.attempts] == ["thanks"]
    await outbox.retention(-(10**12)).prune()
    assert await rows(outbox, answers) == []
