"""Server-sent events: what is appended arrives, and a stream is resumed without a gap."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.api import appends
from relay.api.appends import Appends
from relay.api.routes import feed
from relay.clock import SystemClock
from relay.config.api import Token
from relay.config.endpoint import Endpoint
from relay.events.envelope import StreamEvent
from relay.events.samples import SAMPLES
from relay.outbox.operator.browsing import Browsing
from relay.outbox.operator.event_feed import Found
from tests.support.api import BEGIN, OF_CRM, OPERATOR, TOKENS, Api, Speaking, serving
from tests.support.builders import endpoint

PATH = "/v1/events/stream"
RING = Appends.ring


class Reading:
    """The lines of a stream of events."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.last = ""

    async def events(self, count: int) -> list[Any]:
        """The next events as JSON, each with its id as ``last``."""
        found: list[Any] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                line = await anext(self._lines)
                if line.startswith("id: "):
                    self.last = line.removeprefix("id: ")
                elif line.startswith("data: "):
                    found.append(json.loads(line.removeprefix("data: ")))
        return found


@asynccontextmanager
async def reading(api: Api, *, last: str | None = None, **params: str) -> AsyncIterator[Reading]:
    headers = {} if last is None else {"Last-Event-ID": last}
    async with api.client.stream("GET", PATH, params=params, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 2000"
        yield Reading(lines)


async def test_what_is_appended_arrives_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        alice = await api.stream(1)
        await alice.says("before")
        async with reading(api) as events:
            sent = await alice.says("one", "two")
            bob = await api.stream(2, participant="bob")
            sent += await bob.says("three")
            assert [event["id"] for event in await events.events(3)] == [event.id for event in sent], (
                "the feed must have every event, in the order of the log"
            )


async def test_what_is_appended_arrives_without_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SWEEP_S", 3600.0)
    async with serving(tmp_path) as api:
        alice = await api.stream(1)
        async with reading(api) as events:
            for texts in (("one",), ("two", "three")):
                sent = await alice.says(*texts)
                assert [event["id"] for event in await events.events(len(texts))] == [event.id for event in sent]
            bob = await api.stream(2, participant="bob")
            sent = await bob.says("four")
            assert [event["id"] for event in await events.events(1)] == [sent[0].id]


async def test_what_rings_bring_is_not_read_from_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SWEEP_S", 3600.0)
    async with serving(tmp_path) as api:
        alice, bob = await api.stream(1), await api.stream(2, participant="bob")
        async with reading(api) as events:
            await alice.says("the first one")
            await events.events(1)

            async def broken(*_: object) -> None:
                raise AssertionError("an open page must cost delivery no query per append")

            monkeypatch.setattr(Browsing, "fed", broken)
            for speaking in (alice, bob, alice):
                sent = await speaking.says("one", "two")
                assert [event["id"] for event in await events.events(2)] == [event.id for event in sent]


async def test_what_a_ring_does_not_bring_is_read_at_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SWEEP_S", 3600.0)
    async with serving(tmp_path) as api:
        alice = await api.stream(1)
        async with reading(api) as events:
            await alice.says("the first one")
            await events.events(1)
            monkeypatch.setattr(Appends, "ring", lambda *_: None)
            sent = await alice.says("not announced")
            monkeypatch.setattr(Appends, "ring", RING)
            sent += await alice.says("announced", "long: " + "x" * 100_000, "the last")
            assert [event["id"] for event in await events.events(4)] == [event.id for event in sent], (
                "a lost ring, or one that is too long to bring the event, must leave no gap"
            )


async def test_what_is_too_much_to_keep_is_read_from_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SWEEP_S", 3600.0)
    monkeypatch.setattr(appends, "MOST_BYTES", 3000)
    async with serving(tmp_path) as api:
        alice = await api.stream(1)
        async with reading(api) as events:
            await alice.says("the first one")
            await events.events(1)
            sent = await alice.says(*(f"text {n}" for n in range(30)))
            assert [event["id"] for event in await events.events(len(sent))] == [event.id for event in sent]


async def ended(speaking: Speaking) -> StreamEvent:
    """Append the last event of a stream."""
    event = speaking.event(speaking.log.last_sequence + 1, "", BEGIN, "stream.started")
    last = SAMPLES["stream.ended"].model_copy(update={**dict(event), "type": "stream.ended"})
    last = last.model_copy(update={"data": SAMPLES["stream.ended"].data})  # type: ignore[attr-defined]
    assert isinstance(last, StreamEvent)
    await speaking.log.append([last])
    return last


async def test_a_missed_ring_is_made_good_by_a_sweep_and_nothing_comes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SWEEP_S", 0.2)
    async with serving(tmp_path) as api:
        streams = [await api.stream(number) for number in range(1, 4)]
        async with reading(api) as events:
            new = [await api.stream(number) for number in range(4, 8)]
            sent = []
            for n, speaking in enumerate([*new, *streams] * 4):
                monkeypatch.setattr(Appends, "ring", RING if n % 3 else lambda *_: None)
                sent += await speaking.says(f"text {n}")
            sent.append(await ended(new[1]))
            arrived = await events.events(len(sent))
            assert sorted(event["id"] for event in arrived) == sorted(event.id for event in sent), (
                "what no ring announced must come with the next sweep"
            )
            monkeypatch.setattr(Appends, "ring", RING)
            last = await new[0].says("the last")
            assert [event["id"] for event in await events.events(1)] == [last[0].id]


async def test_a_stream_is_resumed_where_it_ended(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        alice, now = await api.stream(1), SystemClock().now_ms()
        async with reading(api) as events:
            await alice.says("one", at=now)
            (one,) = await events.events(1)
            last = events.last
        missed = await alice.says(*(f"missed {n}" for n in range(300)), at=now)
        seen: dict[str, Any] = {one["id"]: one}
        async with reading(api, last=last) as events:
            while len(seen) < 301:
                (event,) = await events.events(1)
                seen[event["id"]] = event
        assert list(seen) == [one["id"], *(event.id for event in missed)], (
            "a resumed stream must go on after the last event seen, without a gap"
        )
        refused = await api.get(PATH, headers={"Last-Event-ID": f"{now - 2 * feed.OLDEST_MS}.1.1"})
        assert refused.status_code == 409


async def test_filters_and_tokens_apply(tmp_path: Path) -> None:
    crm = endpoint(rooms=["support"], include={"text": False})
    async with serving(tmp_path, [crm], tokens=TOKENS, as_=OF_CRM) as api:
        alice, eve = await api.stream(1), await api.stream(2, room="secret")
        async with reading(api, type="utterance.*") as events:
            await eve.says("not for crm", at=BEGIN)
            await alice.says("not of that type", kind="transcript.final")
            await alice.says("for crm")
            (event,) = await events.events(1)
            assert event["type"] == "utterance.completed"
            assert event["room"]["name"] == "support"
            assert event["data"]["text"] == "", (
                "the token of an endpoint must not show text that the endpoint leaves out"
            )


async def test_a_stop_ends_a_stream_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SWEEP_S", 3600.0)
    async with serving(tmp_path) as api, api.client.stream("GET", PATH) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        api.stop.set()
        async with asyncio.timeout(30):
            assert [line async for line in lines if line.startswith("data")] == []
        assert (await api.get(PATH)).status_code == 503


async def test_only_so_many_streams_are_open_and_each_ends_with_its_reader(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        for _ in range(2):
            readers = []
            for _ in range(feed.MOST_STREAMS):
                reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
                writer.write(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                assert b"200" in await reader.readline()
                readers.append(writer)
            assert (await api.get(PATH)).status_code == 503
            for writer in readers:
                writer.transport.abort()
            async with asyncio.timeout(30):
                while api.server.streams:  # noqa: ASYNC110 - nobody announces it
                    await asyncio.sleep(0.02)


async def test_tokens_of_endpoints_keep_no_operator_out(tmp_path: Path) -> None:
    of_bi, second = "of-bi-" + "b" * 24, "second-of-crm-" + "c" * 24
    more = ({"name": "bi", "token": of_bi, "endpoint": "bi"}, {"name": "crm2", "token": second, "endpoint": "crm"})
    tokens = (*TOKENS, *map(Token.model_validate, more))
    async with serving(tmp_path, [endpoint("crm"), endpoint("bi")], tokens=tokens) as api:
        writers = []

        async def opened(token: str) -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
            writers.append(writer)
            head = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
            writer.write(head.encode())
            return int((await reader.readline()).split()[1])

        assert [await opened(OF_CRM) for _ in range(6)] == [200] * 4 + [503] * 2
        assert await opened(second) == 503, "two tokens of one endpoint have no more places than one"
        assert [await opened(of_bi) for _ in range(4)] == [200] * 2 + [503] * 2
        assert [await opened(OPERATOR) for _ in range(3)] == [200] * 2 + [503]
        for writer in writers:
            writer.transport.abort()


async def test_a_reader_that_does_not_read_is_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SLOWEST_S", 0.3)
    monkeypatch.setattr(feed, "SWEEP_S", 0.01)
    async with serving(tmp_path) as api:
        alice = await api.stream(1)
        reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port, limit=1024)
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert b"200" in await reader.readline()
        async with asyncio.timeout(30):
            while api.server.streams:
                await alice.says("x" * 100_000)
        writer.close()


async def test_a_head_request_opens_no_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        answer = await api.client.head(PATH)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert api.server.streams == 0


async def test_an_open_stream_shows_no_more_than_its_endpoint_receives_now(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint(rooms=["support", "sales"])], tokens=TOKENS, as_=OF_CRM) as api:
        alice, eve = await api.stream(1), await api.stream(2, room="sales")
        async with reading(api) as events:
            await eve.says("before")
            assert (await events.events(1))[0]["data"]["text"] == "before"
            api.endpoints[:] = [endpoint(rooms=["support"], include={"text": False})]
            await eve.says("of a room that it does not receive any more")
            await alice.says("without its text")
            (event,) = await events.events(1)
            assert (event["room"]["name"], event["data"]["text"]) == ("support", "")
            api.endpoints[:] = [endpoint(rooms=["support", "sales"])]
            await eve.says("after")
            while event["data"]["text"] != "after":
                (event,) = await events.events(1)


@pytest.mark.parametrize("grows", [True, False])
async def test_an_open_stream_ends_when_its_endpoint_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, grows: bool
) -> None:
    monkeypatch.setattr(feed, "SWEEP_S", 3600.0 if grows else 0.2)
    async with serving(tmp_path, [endpoint()], tokens=TOKENS, as_=OF_CRM) as api:
        alice = await api.stream(1)
        async with api.client.stream("GET", PATH) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            api.endpoints.clear()
            if grows:
                await alice.says("to nobody")
            async with asyncio.timeout(30):
                assert [line async for line in lines if line.startswith("data")] == []


@pytest.mark.parametrize("now", [[], [endpoint(rooms=["sales"])]], ids=["gone", "for other rooms"])
async def test_what_is_read_while_its_endpoint_changes_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: list[Endpoint]
) -> None:
    read = Browsing.fed
    monkeypatch.setattr(feed, "SWEEP_S", 3600.0)
    async with serving(tmp_path, [endpoint()], tokens=TOKENS, as_=OF_CRM) as api:

        async def fed(self: Browsing, *asked: Any) -> tuple[Found, bool]:
            found, more = await read(self, *asked)
            if found:
                api.endpoints[:] = now
                after.set()
            return found, more

        after = asyncio.Event()
        monkeypatch.setattr(Browsing, "fed", fed)
        async with api.client.stream("GET", PATH) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            bob = await api.stream(1)  # a new stream is read from the log
            await bob.says("read, and then not to be seen")
            async with asyncio.timeout(30):
                await after.wait()
                await bob.says("nor this")
                api.endpoints.clear()
                await bob.says("which ends it")
                assert [line async for line in lines if line.startswith("data")] == []


async def test_a_tenant_does_not_follow_its_name_to_an_endpoint_of_another(tmp_path: Path) -> None:
    acme = Token.model_validate({"name": "acme", "token": OF_CRM, "tenant": "acme", "rooms": ["*"]})
    made = {"url": "http://127.0.0.1:9/", "rooms": ["*"]}
    async with serving(tmp_path, tokens=[acme], as_=OF_CRM) as api:
        made_at = await api.client.put("/v1/endpoints/crm", json=made)
        assert made_at.status_code == 201, made_at.text
        alice = await api.stream(1)
        async with api.client.stream("GET", PATH) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            api.endpoints[:] = [endpoint("crm")]
            await alice.says("to the configuration's endpoint only")
            async with asyncio.timeout(30):
                assert [line async for line in lines if line.startswith("data")] == []
