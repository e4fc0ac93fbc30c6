"""One utterance, one event, and attempts, over HTTP: what the page shows."""

import asyncio
from pathlib import Path
from typing import Any

from relay.app.delivery import delivering
from relay.clock import SystemClock
from tests.support.api import OF_CRM, OPERATOR, TOKENS, Api, serving
from tests.support.builders import endpoint, stream_id
from tests.support.dispatch.receiver import receiving


async def until_delivered(api: Api, event_id: str, count: int) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            said: dict[str, Any] = (await api.get(f"/v1/deliveries/{event_id}")).json()
            if sum(each["state"] == "delivered" for each in said["deliveries"]) == count:
                return said
            await asyncio.sleep(0.02)


async def test_an_utterance_has_its_events_with_every_delivery_and_attempt(tmp_path: Path) -> None:
    async with receiving() as receiver, receiving() as other:
        crm = endpoint(url=receiver.url, include={"text": False})
        async with (
            serving(tmp_path, [crm, endpoint("bi", url=other.url)], tokens=TOKENS, as_=OPERATOR) as api,
            delivering(api.outbox, api.endpoints, SystemClock(), grace_s=1),
        ):
            alice = await api.stream(1)
            now = SystemClock().now_ms()
            await alice.says("before", at=now)
            (event,) = await alice.says("this one", at=now + 1)
            (last,) = await alice.says("after", at=now + 2)
            await until_delivered(api, last.id, 2)
            path = f"/v1/streams/{stream_id(1)}/utterances/{event.utterance.id}"  # type: ignore[union-attr]
            said = (await api.get(path)).json()
            assert [(each["id"], each["event"]["data"]["text"]) for each in said["events"]] == [(event.id, "this one")]
            assert [(each["endpoint"], each["state"]) for each in said["deliveries"]] == [
                ("bi", "delivered"),
                ("crm", "delivered"),
            ]
            assert {(each["event_id"], each["stage"], each["status"]) for each in said["attempts"]} == {
                (event.id, "ok", 200)
            }
            mine = (await api.get(path, headers={"Authorization": f"Bearer {OF_CRM}"})).json()
            assert mine["events"][0]["event"]["data"]["text"] == ""
            assert [each["endpoint"] for each in (*mine["deliveries"], *mine["attempts"])] == ["crm", "crm"]
            for unknown in (f"/v1/streams/{stream_id(1)}/utterances/utt_none", path.replace(stream_id(1), "str_none")):
                assert (await api.get(unknown)).status_code == 404

            listed = (await api.get("/v1/attempts?limit=4")).json()
            assert len(listed["attempts"]) == 4
            rest = (await api.get(f"/v1/attempts?cursor={listed['next']}")).json()
            assert len({(each["event_id"], each["endpoint"]) for each in listed["attempts"] + rest["attempts"]}) == 6
            assert rest["next"] is None
            assert (await api.get("/v1/attempts?outcome=failed")).json()["attempts"] == []
            counts = (await api.get("/v1/attempts/counts?since=2020-01-01T00:00:00Z&endpoint=crm")).json()
            assert sum(each["ok"] for each in counts["periods"]) == 3
            assert {each["endpoint"] for each in counts["periods"]} == {"crm"}
            assert (await api.get("/v1/attempts/counts?since=9999-12-31T23:59:59-14:00")).status_code == 200


async def test_an_event_is_shown_as_an_endpoint_gets_it_to_those_who_may_see_it(tmp_path: Path) -> None:
    crm = endpoint(rooms=["support"], include={"text": False})
    async with serving(tmp_path, [crm, endpoint("bi")], tokens=TOKENS, as_=OPERATOR) as api:
        alice, eve = await api.stream(1), await api.stream(2, room="secret")
        (event,), (hidden,) = await alice.says("hello"), await eve.says("secret")
        assert (await api.get(f"/v1/events/{event.id}")).json()["event"]["data"]["text"] == "hello"
        to_crm = (await api.get(f"/v1/events/{event.id}?endpoint=crm")).json()
        assert to_crm["event"]["data"]["text"] == ""
        bound = {"Authorization": f"Bearer {OF_CRM}"}
        assert (await api.get(f"/v1/events/{event.id}", headers=bound)).json() == to_crm
        assert (await api.get(f"/v1/events/{hidden.id}", headers=bound)).status_code == 404
        for path in ("/v1/attempts?endpoint=bi", f"/v1/events/{event.id}?endpoint=bi"):
            assert (await api.get(path, headers=bound)).status_code == 403
        assert (await api.get(f"/v1/events/{event.id}?endpoint=none")).status_code == 404
        assert (await api.get("/v1/events/evt_none")).status_code == 404


async def test_about_says_what_a_token_may_do(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()], tokens=TOKENS, as_=OPERATOR) as api:
        mine = (await api.get("/v1/about")).json()
        assert (mine["endpoint"], mine["may_change"], mine["playground"]) == (None, True, False)
        bound = (await api.get("/v1/about", headers={"Authorization": f"Bearer {OF_CRM}"})).json()
        assert (bound["endpoint"], bound["may_change"]) == ("crm", False)
        for sent, said in {"Bearer none": "does not know this token", OPERATOR: "requires a token"}.items():
            refused = await api.get("/v1/about", headers={"Authorization": sent})
            assert (refused.status_code, said in refused.json()["detail"]) == (401, True), refused.text
