"""What the HTTP API reads from the log."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from relay.outbox.operator import event_pages
from tests.support.api import BEGIN, OF_CRM, OPERATOR, TOKENS, Api, serving
from tests.support.builders import endpoint


async def pages(api: Api, path: str, key: str, **params: Any) -> list[Any]:
    """Every item of a list, page by page."""
    found: list[Any] = []
    while True:
        answer = await api.get(path, params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page[key]
        if page["next"] is None:
            return found
        params["after" if "stream" in page else "cursor"] = page["next"]


async def test_a_stream_is_read_after_a_sequence_page_by_page(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        alice = await api.stream(1)
        sent = await alice.says(*(f"word {n}" for n in range(10)))
        path = f"/v1/streams/{alice.id}/events"
        found = await pages(api, path, "events", after=3, limit=2)
        assert [event["id"] for event in found] == [event.id for event in sent[3:]]
        (first,) = (await api.get(path, params={"limit": 1})).json()["events"]
        assert first["data"]["text"] == "word 0"
        head = (await api.get(path, params={"after": 10})).json()
        assert head["events"] == []
        assert head["next"] is None
        assert head["stream"]["last_sequence"] == 10
        assert head["stream"]["first_sequence"] == 1


async def test_an_unknown_stream_is_a_problem(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        answer = await api.get("/v1/streams/str_nothing/events")
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json() == {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "The log has no such stream, or has it no longer.",
        }


@pytest.mark.parametrize(("scanned", "size"), [(20_000, 8 << 20), (3, 8 << 20), (20_000, 1)])
async def test_events_of_all_streams_are_paged_newest_first(
    tmp_path: Path, scanned: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_pages, "SCANNED", scanned)
    monkeypatch.setattr(event_pages, "BYTES", size)
    async with serving(tmp_path) as api:
        streams = [await api.stream(number, participant=name) for number, name in enumerate(("alice", "bob", "carol"))]
        expected = []
        for turn in range(7):
            for number, stream in enumerate(streams):
                kind = "utterance.completed" if turn % 3 else "transcript.final"
                (event,) = await stream.says(f"{turn}", at=BEGIN + 1000 * turn + 10 * (number // 2), kind=kind)
                expected.append(event)
        newest_first = sorted(
            expected, key=lambda e: (e.timing.emitted_at, e.stream.id, e.stream.sequence), reverse=True
        )
        found = await pages(api, "/v1/events", "events", limit=4)
        assert [event["id"] for event in found] == [event.id for event in newest_first]
        assert found[0]["event"]["data"]["text"] == "6"
        finals = await pages(api, "/v1/events", "events", limit=2, type="*.final", participant="[ab]*")
        assert [event["id"] for event in finals] == [
            event.id
            for event in newest_first
            if event.type == "transcript.final" and event.participant.identity != "carol"
        ]
        since = await pages(api, "/v1/events", "events", limit=2, since="2027-01-15T08:00:05Z")
        assert [event["id"] for event in since] == [
            event.id for event in newest_first if event.timing.emitted_at.isoformat() >= "2027-01-15T08:00:05"
        ]


async def test_rooms_are_paged_with_the_newest_first(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        for number in range(5):
            await (await api.stream(number, room=f"room/{number % 3}", participant=f"p{number}")).says("hello")
        found = await pages(api, "/v1/rooms", "rooms", limit=1)
        assert sorted(room["name"] for room in found) == ["room/0", "room/1", "room/2"]
        room = (await api.get("/v1/rooms/room%2F1")).json()
        assert room["participants"] == ["p1", "p4"]
        assert [stream["last_sequence"] for stream in room["streams"]] == [1, 1]
        assert room["closed_at"] is None
        assert (await api.get("/v1/rooms/none")).status_code == 404


@pytest.mark.parametrize("name", ["会議\u3000室", "équipe\u00a0a", "👩\u200d💻", "\u202eroom", "a\nb", "\x00"])
async def test_rooms_of_any_name_are_paged(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as api:
        for number in range(3):
            await (await api.stream(number, room=f"{name}{number}")).says("hello")
        found = await pages(api, "/v1/rooms", "rooms", limit=1)
        assert sorted(room["name"] for room in found) == [f"{name}{number}" for number in range(3)]


async def test_an_id_with_more_digits_than_the_log_can_count_is_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()]) as api:
        alice = await api.stream(1)
        await alice.says("hello")
        beyond = f"evt_{alice.id.removeprefix('str_')}_{'9' * 30}"
        for path in (f"/v1/events/{beyond}", f"/v1/deliveries/{beyond}"):
            assert (await api.get(path)).status_code == 404
        for action in ("retry", "discard"):
            answer = await api.client.post(f"/v1/deliveries/{beyond}/{action}", json={"endpoint": "crm"})
            assert answer.status_code == 404


async def test_a_room_whose_name_ends_like_a_path_is_not_taken_for_another(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        for number, name in enumerate(("sales", "sales/transcript"), 1):
            await (await api.stream(number, name)).says(f"in {name}")
        for path, name in (("sales", "sales"), ("sales%2Ftranscript", "sales/transcript")):
            assert (await api.get(f"/v1/rooms/{path}")).json()["name"] == name
            (line,) = (await api.get(f"/v1/rooms/{path}/transcript")).json()["lines"]
            assert line["text"] == f"in {name}"


async def test_a_transcript_is_in_the_order_of_speech(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        alice, bob = await api.stream(1), await api.stream(2, participant="bob")
        await alice.says("Hello.", at=BEGIN + 1_000)
        await alice.says("Fine <b> & you?", at=BEGIN + 5_000)
        (asked,) = await bob.says("Hi,\nhow are you?", at=BEGIN + 3_000)
        path = "/v1/rooms/support/transcript"
        lines = (await api.get(path)).json()["lines"]
        assert [line["text"] for line in lines] == ["Hello.", "Hi, how are you?", "Fine <b> & you?"]
        assert asked.utterance is not None
        told = {"id": lines[1]["utterance_id"], "index": asked.utterance.index, "revision": lines[1]["revision"]}
        assert told == asked.utterance.model_dump(), "by which a reader knows a revised utterance again"
        text = await api.get(path, params={"format": "text"})
        assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert text.text.splitlines()[1] == "2027-01-15T08:00:02.500Z Bob: Hi, how are you?"
        vtt = await api.get(path, params={"format": "vtt"})
        assert vtt.headers["Content-Type"] == "text/vtt; charset=utf-8"
        assert vtt.text.startswith("WEBVTT\n\n")
        assert "<v Alice>Fine &lt;b&gt; &amp; you?</v>" in vtt.text
        newest = await api.get(path, params={"limit": 1, "format": "text"})
        assert newest.text.endswith("Alice: Fine <b> & you?\n")
        assert newest.links["next"]["url"].startswith("/v1/rooms/support/transcript?format=text")
        assert (await api.get(newest.links["next"]["url"])).text.endswith("Bob: Hi, how are you?\n")


async def test_endpoints_and_deliveries_say_what_waits(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()]) as api:
        alice = await api.stream(1)
        first, *_ = await alice.says("one", "two", "three")
        (crm,) = (await api.get("/v1/endpoints")).json()["endpoints"]
        assert (crm["name"], crm["state"], crm["pending"]) == ("crm", "enabled", 3)
        assert crm["lag_ms"] is not None
        found = await pages(api, "/v1/deliveries", "deliveries", limit=2)
        assert [each["sequence"] for each in found] == [1, 2, 3]
        one = (await api.get(f"/v1/deliveries/{first.id}")).json()
        assert one["deliveries"][0]["state"] == "pending"
        assert one["attempts"] == []
        assert (await api.get("/v1/deliveries/evt_nothing_1")).status_code == 404
        assert (await api.get("/v1/deliveries", params={"state": "lost"})).status_code == 422


async def test_a_token_of_an_endpoint_sees_only_what_it_receives(tmp_path: Path) -> None:
    crm = endpoint(rooms=["support"], events=["utterance.completed"], include={"text": True, "words": False})
    async with serving(tmp_path, [crm, endpoint("other")], tokens=TOKENS, as_=OF_CRM) as api:
        alice, eve = await api.stream(1), await api.stream(2, room="secret", participant="eve")
        (said,) = await alice.says("for crm")
        (not_subscribed,) = await alice.says("not of that type", kind="transcript.final")
        (hidden,) = await eve.says("not for crm")
        (event,) = await pages(api, "/v1/events", "events")
        assert event["id"] == said.id
        assert event["event"]["data"]["words"] == []
        (event,) = await pages(api, f"/v1/streams/{alice.id}/events", "events")
        assert event["id"] == said.id
        assert (await api.get(f"/v1/streams/{eve.id}/events")).status_code == 404
        assert [room["name"] for room in await pages(api, "/v1/rooms", "rooms")] == ["support"]
        assert (await api.get("/v1/rooms/secret")).status_code == 404
        assert (await api.get("/v1/rooms/secret/transcript")).status_code == 404
        assert [each["name"] for each in (await api.get("/v1/endpoints")).json()["endpoints"]] == ["crm"]
        assert {each["endpoint"] for each in await pages(api, "/v1/deliveries", "deliveries")} == {"crm"}
        assert (await api.get("/v1/deliveries", params={"endpoint": "other"})).status_code == 403
        assert (await api.get(f"/v1/deliveries/{said.id}")).status_code == 200
        for event_id in (hidden.id, not_subscribed.id):
            assert (await api.get(f"/v1/deliveries/{event_id}")).status_code == 404
        for stream, unseen in ((eve, hidden), (alice, not_subscribed)):
            path = f"/v1/streams/{stream.id}/utterances/{unseen.utterance.id}"  # type: ignore[union-attr]
            assert (await api.get(path)).status_code == 404
        api.endpoints[:] = [endpoint("other")]
        assert (await api.get("/v1/events")).status_code == 403, "its endpoint is gone"


async def test_an_endpoint_without_text_gets_no_transcript(tmp_path: Path) -> None:
    crm = endpoint(include={"text": False})
    async with serving(tmp_path, [crm], tokens=TOKENS, as_=OF_CRM) as api:
        alice = await api.stream(1)
        await alice.says("a secret word")
        assert (await api.get("/v1/rooms/support/transcript")).status_code == 403
        for path in ("/v1/events", f"/v1/streams/{alice.id}/events"):
            assert "a secret word" not in (await api.get(path)).text


async def test_a_stream_from_before_its_endpoint_is_not_shown_to_it(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint("other")], tokens=TOKENS, as_=OF_CRM) as api:
        alice = await api.stream(1)
        (said,) = await alice.says("before crm")
        await alice.log.aclose()
        api.endpoints.append(endpoint())
        assert (await api.get("/v1/events")).json()["events"] == []
        for path in ("events", f"utterances/{said.utterance.id}"):  # type: ignore[union-attr]
            assert (await api.get(f"/v1/streams/{alice.id}/{path}")).status_code == 404


async def test_endpoints_and_deliveries_are_listed_page_by_page(tmp_path: Path) -> None:
    names = ["bi", "crm", "new", "ops"]
    async with serving(tmp_path, [endpoint(name) for name in names if name != "new"]) as api:
        api.endpoints.append(endpoint("new"))
        sent = await (await api.stream(1)).says(*map(str, range(5)))
        listed = await pages(api, "/v1/endpoints", "endpoints", limit=1)
        assert [(each["name"], each["state"], each["pending"]) for each in listed] == [
            (name, "new" if name == "new" else "enabled", 0 if name == "new" else 5) for name in names
        ]
        waiting = await pages(api, "/v1/deliveries", "deliveries", limit=2, endpoint="crm")
        assert [each["event_id"] for each in waiting] == [event.id for event in sent]
        assert len(await pages(api, "/v1/deliveries", "deliveries", limit=4)) == 15
        for wrong in ("5", "pending.1", "none.1.1"):
            assert (await api.get("/v1/deliveries", params={"cursor": wrong})).status_code == 422


async def test_while_the_log_is_away_the_answer_is_503_and_tells_operators_why(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()], tokens=TOKENS) as api:
        with sqlite3.connect(tmp_path / "relay.db") as connection:
            connection.execute("ALTER TABLE streams RENAME TO away")
        connection.close()
        for token, reason in ((OPERATOR, "no such table"), (OF_CRM, "the relay's own log has the reason")):
            answer = await api.get("/v1/events", headers={"Authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
            assert "Retry-After" in answer.headers
            assert reason in answer.json()["detail"]
