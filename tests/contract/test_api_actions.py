"""What an operator changes over HTTP, and that nothing else does."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from relay.config.fields import NOT_A_TIME
from relay.dispatch.signing import new_secret
from relay.outbox.records import DeadLetter, Settlement
from tests.support.api import BEGIN, OF_CRM, OPERATOR, TOKENS, Api, serving
from tests.support.builders import endpoint
from tests.support.dispatch.receiver import Answer, Receiver
from tests.support.outbox.outbox_store import the_lane

ACTIONS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/endpoints/crm/disable", {}),
    ("/v1/endpoints/crm/enable", {}),
    ("/v1/endpoints/crm/resend", {"since": "2020-01-01T00:00:00Z"}),
    ("/v1/deliveries/evt_1/retry", {"endpoint": "crm"}),
    ("/v1/deliveries/evt_1/discard", {"endpoint": "crm"}),
]


async def post(api: Api, path: str, **body: Any) -> httpx.Response:
    return await api.client.post(path, json=body)


async def state(api: Api) -> str:
    (crm,) = (await api.get("/v1/endpoints")).json()["endpoints"]
    return str(crm["state"])


async def test_an_endpoint_is_disabled_and_enabled(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()]) as api:
        await (await api.stream(1)).says("one", "two")
        changed = await post(api, "/v1/endpoints/crm/disable")
        assert changed.json() == {"endpoint": "crm", "changed": True, "skipped": 0}
        assert await state(api) == "disabled"
        assert (await post(api, "/v1/endpoints/crm/disable")).json()["changed"] is False
        enabled = await post(api, "/v1/endpoints/crm/enable", skip=True)
        assert enabled.json() == {"endpoint": "crm", "changed": True, "skipped": 2}
        assert await state(api) == "enabled"
        assert (await post(api, "/v1/endpoints/unknown/disable")).status_code == 404


async def test_a_dead_event_is_retried_or_discarded_once(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()]) as api:
        first, second = await (await api.stream(1)).says("one", "two")
        for sequence in (1, 2):
            lane = await the_lane(api.outbox.lanes)
            dead = DeadLetter(sequence, 3, "status 500", 0)
            settlement = Settlement(lane.id, lane.fence, sequence, sequence, 0, next_at=0, dead=dead)
            await api.outbox.lanes.settle(settlement)
        assert (await api.get(f"/v1/deliveries/{first.id}")).json()["deliveries"][0]["state"] == "dead"
        discarded = await post(api, f"/v1/deliveries/{first.id}/discard", endpoint="crm")
        assert discarded.json() == {"event_id": first.id, "endpoint": "crm"}
        again = await post(api, f"/v1/deliveries/{first.id}/discard", endpoint="crm")
        assert (again.status_code, again.json()["title"]) == (409, "Conflict")
        retried = await post(api, f"/v1/deliveries/{second.id}/retry", endpoint="crm")
        assert retried.json()["outcome"] == "revived"
        assert (await api.get(f"/v1/deliveries/{second.id}")).json()["deliveries"][0]["state"] == "parked"
        assert (await post(api, f"/v1/deliveries/{first.id}/retry", endpoint="crm")).status_code == 409
        assert (await post(api, "/v1/deliveries/evt_1/retry", endpoint="crm")).status_code == 404


async def test_a_resend_is_counted_and_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()]) as api:
        await (await api.stream(1)).says("one", "two", at=1_700_000_000_000)
        lane = await the_lane(api.outbox.lanes)
        await api.outbox.lanes.settle(Settlement(lane.id, lane.fence, 2, 2, 0))
        path, since = "/v1/endpoints/crm/resend", "2020-01-01T00:00:00Z"
        counted = (await post(api, path, since=since, dry_run=True)).json()
        assert (counted["events"], counted["streams"]) == (2, 1)
        (crm,) = (await api.get("/v1/endpoints")).json()["endpoints"]
        assert crm["resending"] == 0
        assert (await post(api, path, since=since, type="utterance.*")).json()["events"] == 2
        (crm,) = (await api.get("/v1/endpoints")).json()["endpoints"]
        assert crm["resending"] == 1
        assert (await post(api, path, since="2999-01-01T00:00:00Z")).status_code == 422
        assert (await post(api, path, since=since, type="nothing")).status_code == 422
        assert (await post(api, path, since=since, unknown=1)).status_code == 422
        for moment in (3600, "3600", 1.5, "2020-01-01"):  # seconds since 1970 would be all that there is
            answer = await post(api, path, since=moment, dry_run=True)
            assert answer.status_code == 422
            assert answer.json()["errors"] == [{"where": "body.since", "what": NOT_A_TIME}]
            assert (await api.get("/v1/events", params={"since": moment})).status_code == 422


@pytest.mark.parametrize(("path", "body"), ACTIONS)
async def test_a_token_of_an_endpoint_changes_nothing(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    async with serving(tmp_path, [endpoint()], tokens=TOKENS, as_=OF_CRM) as api:
        assert (await post(api, path, **body)).status_code == 403
        operators = {"Authorization": f"Bearer {OPERATOR}"}
        assert (await api.client.post(path, json=body, headers=operators)).status_code in (200, 404)


@pytest.mark.parametrize(("path", "body"), ACTIONS)
async def test_a_web_page_changes_nothing(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    async with serving(tmp_path, [endpoint()]) as api:
        await (await api.stream(1)).says("one", at=BEGIN)
        evil = {"Origin": "http://evil.example.org"}
        assert (await api.client.post(path, json=body, headers=evil)).status_code == 403
        simple = {"Content-Type": "text/plain"}
        assert (await api.client.post(path, content=b"{}", headers=simple)).status_code == 415
        assert (await api.client.post(path, json=body, headers={"Host": "evil.example.org"})).status_code == 421
        assert (await api.get(path)).status_code == 405
        assert await state(api) == "enabled"


async def test_a_ping_is_sent_as_a_delivery_and_its_outcome_answered(tmp_path: Path, receiver: Receiver) -> None:
    secret = new_secret()
    signed = endpoint(url=receiver.url, signing="standard", secret=secret)
    private = endpoint("private", url=receiver.url, egress={"public_only": True})
    async with serving(tmp_path, [signed, private], tokens=TOKENS, as_=OPERATOR) as api:
        taken = (await post(api, "/v1/endpoints/crm/ping")).json()
        assert (taken["taken"], taken["stage"], taken["status"], taken["reason"]) == (True, "ok", 200, None)
        (request,) = receiver.requests
        assert Webhook(secret).verify(request.body, request.headers)["type"] == "ping"
        assert (request.id, request.headers["relay-sample"]) == (taken["event_id"], "true")
        receiver.answer = lambda _: Answer(503)
        failed = (await post(api, "/v1/endpoints/crm/ping")).json()
        assert (failed["taken"], failed["stage"], failed["status"]) == (False, "status", 503)
        refused = (await post(api, "/v1/endpoints/private/ping")).json()
        assert (refused["stage"], refused["status"]) == ("egress", None)
        assert (await post(api, "/v1/endpoints/none/ping")).status_code == 404
        of_crm = {"Authorization": f"Bearer {OF_CRM}"}
        assert (await api.client.post("/v1/endpoints/crm/ping", json={}, headers=of_crm)).status_code == 403
