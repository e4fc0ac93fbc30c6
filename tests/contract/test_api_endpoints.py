"""Endpoints at run time: who may make which, and what may not be chosen over the API."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.api import guard
from relay.api.routes import actions
from relay.config.api import Token
from relay.config.api_endpoint import ApiEndpointOptions
from relay.config.endpoint import Endpoint
from relay.outbox.records import Attempt, DeadLetter, Settlement
from tests.support.api import OF_CRM, OPERATOR, TOKENS, Api, serving
from tests.support.builders import endpoint
from tests.support.outbox.outbox_store import the_lane

URL = "https://hooks.example.com/in"
OF_ACME, OF_ZETA = "of-acme-" + "a" * 24, "of-zeta-" + "z" * 24
TENANTS = (
    *TOKENS,
    Token.model_validate({"name": "acme", "token": OF_ACME, "tenant": "acme", "rooms": ["acme-*"]}),
    Token.model_validate({"name": "zeta", "token": OF_ZETA, "tenant": "zeta", "rooms": ["zeta-*"]}),
)


async def put(api: Api, name: str, /, *, as_: str | None = None, **options: Any) -> httpx.Response:
    return await api.client.put(f"/v1/endpoints/{name}", json={"url": URL, **options}, headers=bearer(as_))


async def get(api: Api, path: str, as_: str | None = None) -> httpx.Response:
    return await api.client.get(path, headers=bearer(as_))


async def delete(api: Api, name: str, as_: str | None = None) -> int:
    return (await api.client.delete(f"/v1/endpoints/{name}", headers=bearer(as_))).status_code


def bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


async def names(api: Api, as_: str) -> list[str]:
    return [each["name"] for each in (await get(api, "/v1/endpoints", as_)).json()["endpoints"]]


async def test_an_endpoint_is_made_changed_and_removed(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        made = await put(api, "crm", rooms=["a-*"], timeout="5s")
        assert made.status_code == 201
        assert made.json()["secret"].startswith("whsec_")
        assert made.json()["options"] == {"url": URL, "rooms": ["a-*"], "timeout": 5.0}
        same = await put(api, "crm", rooms=["a-*"], timeout=5)
        assert (same.status_code, same.json()["changed"], same.json()["secret"]) == (200, False, None)
        changed = await put(api, "crm")
        assert (changed.status_code, changed.json()["changed"], changed.json()["options"]) == (200, True, {"url": URL})
        assert (await get(api, "/v1/endpoints/crm")).json()["secret"] is None
        assert await delete(api, "crm") == 204
        assert (await get(api, "/v1/endpoints/crm")).status_code == 404
        assert await delete(api, "crm") == 404


async def test_a_secret_is_shown_once_and_the_one_before_stays_valid(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        secrets = [(await put(api, "crm")).json()["secret"]]
        for _ in range(2):
            rotated = await api.client.post("/v1/endpoints/crm/rotate", json={})
            secrets.append(rotated.json()["secret"])
        assert len(set(secrets)) == 3
        stored = await api.log.api_endpoints.get("crm")
        assert stored is not None
        assert list(stored.secrets) == secrets[:0:-1]
        shown = (await get(api, "/v1/endpoints/crm")).text + (await get(api, "/v1/endpoints")).text
        assert not [secret for secret in secrets if secret in shown]
        assert (await api.client.post("/v1/endpoints/none/rotate", json={})).status_code == 404


FORBIDDEN: list[dict[str, Any]] = [
    {"tls": {"ca": "/etc/passwd"}},
    {"secret": "whsec_" + "A" * 44},
    {"signing": "none"},
    {"signing": "livekit"},
    {"livekit_key": {"api_key": "k", "api_secret": "s"}},
    {"egress": {"public_only": False}},
    {"name": "other"},
    {"within": ["*"]},
    {"headers": {"Host": "internal"}},
    {"headers": {"webhook-id": "x"}},
    {"headers": {"X": "a" * 5000}},
    {"url": "file:///etc/passwd"},
    {"url": "https://user:secret@example.com/"},
    {"timeout": "1h"},
    {"connect_timeout": "1h"},
    {"max_connection_age": "7d"},
    {"concurrency": 256},
    {"disable_after": None},
    {"disable_after": "365d"},
    {"retry": {"schedule": ["1s"] * 100}},
    {"retry": {"schedule": ["365d"]}},
    {"retry": {"schedule": ["1s", "0s"]}},
    {"breaker": {"rest": "1ms"}},
    {"rooms": ["*"] * 100},
    {"rooms": ["*a" * 200]},
    {"participants": ["*a" * 9]},
    {"events": ["*"] * 100},
    {"expires_at": "2020-01-01T00:00:00Z"},
    {"expires_at": "2999-01-01T00:00:00"},
    {"expires_at": "9999-12-31T23:59:59-14:00"},
    {"tenant": "Not A Tenant"},
]


async def test_what_the_host_keeps_or_the_relay_bounds_cannot_be_chosen(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        for options in FORBIDDEN:
            assert (await put(api, "crm", **options)).status_code == 422, options
        for name in ("UPPER", "a" * 65, "a b"):
            assert (await put(api, name)).status_code == 422, name
        assert await api.log.api_endpoints.every() == []


async def test_an_unknown_option_is_named_if_it_looks_like_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        for option, where in {"ulr": "body.ulr", "ulr \u0007": "body", "a" * 65: "body"}.items():
            (mistake,) = (await put(api, "crm", **{option: "x"})).json()["errors"]
            assert mistake == {"where": where, "what": "unknown key"}
        (mistake,) = (await put(api, "crm", events=["transcript.finl"])).json()["errors"]
        assert mistake["what"] == "no event type is called transcript.finl; did you mean transcript.final?"


async def test_a_body_that_is_missing_or_not_json_says_what_to_send(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        await put(api, "crm")
        for content, said in {"": "is missing; send a JSON object: {} chooses nothing", "{": "not JSON"}.items():
            headers = {"Content-Type": "application/json"}
            answer = await api.client.post("/v1/endpoints/crm/rotate", content=content, headers=headers)
            assert answer.json()["errors"] == [{"where": "body", "what": said}]


async def test_a_mistake_in_a_request_is_told_in_the_words_of_the_configuration(tmp_path: Path) -> None:
    """And not in those of a library, which say what a value is to a Python program."""
    time = "not a time with its zone; write it like 2026-11-21T10:15:00Z"
    said: dict[str, tuple[Any, str]] = {
        "concurrency": ([], "not a whole number; write it in digits"),
        "events": ("speech.*", "not a list; write it like [a, b]"),
        "rooms": ([1], "not text; put it in quotes"),
        "order": ("any", "not a possible value; one of park or strict"),
        "breaker": ("none", "not an object; write it like {}"),
        "url": ("example.com", "not an http:// or https:// URL; write it like https://example.com/hooks"),
        "tenant": ("A B", "not a name; lower-case letters, digits, - and _ only, at most 64"),
        "expires_at": ("2030-01-01T00:00:00", time),
    }
    async with serving(tmp_path) as api:
        for option, (value, words) in said.items():
            found = (await put(api, "crm", as_=None, **{option: value})).json()["errors"]
            assert [each["what"] for each in found] == [words], option
        for path in ("/v1/events?since=noon", "/v1/attempts/counts?since=2026-11-21T10:15:00"):
            (mistake,) = (await api.client.get(path)).json()["errors"]
            assert mistake == {"where": "query.since", "what": time}
        (mistake,) = (await api.client.get("/v1/events?cursor=x")).json()["errors"]
        assert mistake == {"where": "query.cursor", "what": "is not the `next` of a page"}
        (mistake,) = (await api.client.get("/v1/attempts/counts")).json()["errors"]
        assert mistake == {"where": "query.since", "what": "is missing; add it"}


async def test_a_body_that_cannot_be_read_is_a_mistake_and_one_too_long_is_too_long(tmp_path: Path) -> None:
    async def in_chunks() -> AsyncIterator[bytes]:
        yield b" " * (guard.MOST_BODY + 1)

    headers = {"Content-Type": "application/json"}
    async with serving(tmp_path) as api:
        for content in (b"[" * 30_000, b'{"since": "\xff"}', b'{"since": ' + b"9" * 30_000 + b"}"):
            answer = await api.client.post("/v1/endpoints/crm/resend", content=content, headers=headers)
            (mistake,) = answer.json()["errors"]
            assert (answer.status_code, mistake["where"]) == (422, "body")
            assert "JSON" in mistake["what"]
        answer = await api.client.post("/v1/endpoints/crm/resend", content=in_chunks(), headers=headers)
        assert answer.status_code == 413


async def test_a_method_that_no_path_has_is_told_as_such(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        for method in ("PATCH", "TRACE", "FETCH"):
            answer = await api.client.request(method, "/v1/endpoints/crm")
            assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, PUT"), method


@pytest.mark.parametrize(
    "option",
    [
        r'"headers": {"X": "\ud800"}',
        r'"rooms": ["a", "\udfff"]',
        r'"participants": ["\ud800"]',
        r'"include": {"attributes": ["\ud800"]}',
    ],
)
async def test_half_a_character_is_refused(tmp_path: Path, option: str) -> None:
    """JSON can write one. It can be neither stored nor sent."""
    async with serving(tmp_path) as api:
        body = f'{{"url": "{URL}", {option}}}'
        headers = {"Content-Type": "application/json"}
        assert (await api.client.put("/v1/endpoints/crm", content=body, headers=headers)).status_code == 422
        assert await api.log.api_endpoints.every() == []


async def test_patterns_are_counted_before_any_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def matching(_: str, pattern: str) -> bool:
        compared.append(len(pattern))
        return False

    monkeypatch.setattr("relay.events.catalog.fnmatchcase", matching)
    async with serving(tmp_path) as api:
        for events in (["*a" * 30_000], [f"*{number}*" for number in range(5_000)]):
            assert (await put(api, "crm", events=events)).status_code == 422
    assert not compared


def test_every_option_of_an_endpoint_is_allowed_or_refused_on_purpose() -> None:
    """A new option names something of the host, or it does not: whoever adds it decides."""
    refused = {"name", "signing", "secret", "livekit_key", "tls", "egress"}
    assert ApiEndpointOptions.model_fields.keys() - {"tenant", "expires_at"} == Endpoint.model_fields.keys() - refused


async def test_variables_are_not_expanded_and_only_public_addresses_reached(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        await put(api, "crm", headers={"X-Key": "${PATH}"})
        assert api.directory.endpoints["crm"].headers == {"X-Key": "${PATH}"}
        assert api.directory.endpoints["crm"].egress.public_only
        shown = (await get(api, "/v1/endpoints/crm")).text
        assert "${PATH}" not in shown


async def test_endpoints_of_the_configuration_are_read_only(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()], tokens=TENANTS, as_=OPERATOR) as api:
        for answer in (
            await put(api, "crm"),
            await get(api, "/v1/endpoints/crm"),
            await api.client.delete("/v1/endpoints/crm"),
        ):
            assert answer.status_code == 409
            assert "configuration file" in answer.json()["detail"]
        hidden = await put(api, "crm", as_=OF_ACME)
        assert (hidden.status_code, "configuration" in hidden.text) == (409, False)
        assert (await get(api, "/v1/endpoints/crm", OF_ACME)).status_code == 404


async def test_the_configuration_wins_a_name_that_it_takes_later(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TENANTS, as_=OPERATOR) as api:
        await put(api, "crm")
        api.endpoints.append(endpoint())
        await api.outbox.lanes.sync_endpoints(["crm"])
        assert (await get(api, "/v1/endpoints/crm")).json()["replaced_by_configuration"] is True
        assert (await put(api, "crm")).status_code == 409
        assert await delete(api, "crm") == 204
        assert await names(api, OPERATOR) == ["crm"]


async def test_a_removed_endpoint_that_left_nothing_is_listed_no_more(tmp_path: Path) -> None:
    """Nor is the one that was removed last, of which the log keeps the number of the change."""
    async with serving(tmp_path, tokens=TENANTS, as_=OPERATOR) as api:
        for name in ("crm", "acme"):
            assert (await put(api, name)).status_code == 201
        for name in ("crm", "acme"):
            assert await delete(api, name) == 204
        (removed,) = [each for each in await api.log.api_endpoints.changes(0) if each.name == "acme"]
        await api.log.api_endpoints.remove_expired()
        assert await api.log.inspection.endpoint_names() == []
        assert (await put(api, "crm")).status_code == 201
        (made,) = await api.log.api_endpoints.every()
        assert made.change > removed.change, "who follows the changes must see it"


async def test_a_tenant_manages_its_own_endpoints_only(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()], tokens=TENANTS) as api:
        assert (await put(api, "acme-1", as_=OF_ACME)).status_code == 201
        assert (await put(api, "zeta-1", as_=OF_ZETA, tenant="zeta")).status_code == 201
        assert (await put(api, "ops-1", as_=OPERATOR)).status_code == 201
        assert (await put(api, "acme-2", as_=OPERATOR, tenant="acme")).status_code == 201
        assert (await put(api, "acme-3", as_=OF_ACME, tenant="zeta")).status_code == 403
        assert (await put(api, "acme-3", as_=OF_CRM)).status_code == 403
        for name in ("zeta-1", "ops-1"):
            assert (await put(api, name, as_=OF_ACME)).status_code == 409
            assert (await get(api, f"/v1/endpoints/{name}", OF_ACME)).status_code == 404
            assert await delete(api, name, OF_ACME) == 404
            for action in ("rotate", "disable", "enable"):
                answer = await api.client.post(f"/v1/endpoints/{name}/{action}", json={}, headers=bearer(OF_ACME))
                assert answer.status_code == 404
        assert await names(api, OF_ACME) == ["acme-1", "acme-2"]
        assert await names(api, OF_ZETA) == ["zeta-1"]
        assert await names(api, OF_CRM) == ["crm"]
        assert await names(api, OPERATOR) == ["acme-1", "acme-2", "crm", "ops-1", "zeta-1"]
        assert await delete(api, "acme-2", OF_ACME) == 204


async def test_a_tenant_gets_nothing_of_rooms_that_its_token_does_not_allow(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TENANTS) as api:
        made = await put(api, "acme", as_=OF_ACME, rooms=["*"], events=["*"])
        assert made.json()["rooms_at_most"] == ["acme-*"]
        own, other = await api.stream(1, room="acme-1"), await api.stream(2, room="zeta-1")
        await own.says("mine")
        await other.says("theirs")
        events = (await get(api, "/v1/events", OF_ACME)).json()["events"]
        assert [each["room"] for each in events] == ["acme-1"]
        assert (await get(api, "/v1/rooms/zeta-1", OF_ACME)).status_code == 404
        assert (await get(api, f"/v1/streams/{other.id}/events", OF_ACME)).status_code == 404
        assert await api.outbox.lanes.due_api_endpoints() == ({"acme"}, set())
        assert await api.outbox.lanes.api_lanes([1, 2]) == {1: ["acme"], 2: []}


async def test_a_tenant_sees_through_one_endpoint_at_a_time(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TENANTS) as api:
        assert (await get(api, "/v1/events", OF_ACME)).status_code == 403
        await put(api, "words", as_=OF_ACME, events=["transcript.*"])
        await put(api, "speech", as_=OF_ACME, events=["utterance.completed"], include={"text": False})
        await (await api.stream(1, room="acme-1")).says("secret")
        assert (await get(api, "/v1/events", OF_ACME)).status_code == 422
        assert (await get(api, "/v1/events?endpoint=words", OF_ACME)).json()["events"] == []
        (event,) = (await get(api, "/v1/events?endpoint=speech", OF_ACME)).json()["events"]
        assert event["event"]["data"]["text"] == ""
        assert (await get(api, "/v1/events?endpoint=speech", OF_ZETA)).status_code == 403
        assert (await get(api, "/v1/deliveries?endpoint=speech", OF_ZETA)).status_code == 403
        (waiting,) = (await get(api, "/v1/deliveries?endpoint=speech", OF_ACME)).json()["deliveries"]
        assert waiting["event_id"] == event["id"]


async def test_operators_see_who_made_an_endpoint(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint("ops")], tokens=TENANTS) as api:
        await put(api, "acme", as_=OF_ACME)
        await put(api, "for-acme", as_=OPERATOR, tenant="acme")
        await put(api, "acme", as_=OF_ACME, rooms=["acme-x"])
        listed = (await get(api, "/v1/endpoints", OPERATOR)).json()["endpoints"]
        made = {each["name"]: (each["made_by"], each["tenant"]) for each in listed}
        operator = next(token.name for token in TOKENS if token.token.get_secret_value() == OPERATOR)
        assert made == {"acme": ("acme", "acme"), "for-acme": (operator, "acme"), "ops": (None, None)}
        assert (await get(api, "/v1/endpoints/for-acme", OPERATOR)).json()["made_by"] == operator
        seen = (await get(api, "/v1/endpoints", OF_ACME)).json()["endpoints"]
        assert [(each["made_by"], each["tenant"]) for each in seen] == [(None, "acme")] * 2, (
            "a tenant must not learn the names of the operators' tokens"
        )


async def test_a_tenant_does_not_learn_what_the_resolver_knows(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TENANTS) as api:
        known, unknown = "https://10.20.30.40/", "https://none.invalid/"
        answers = {}
        for name, url in (("known", known), ("unknown", unknown)):
            assert (await put(api, name, as_=OF_ACME, url=url)).status_code == 201
            ping = f"/v1/endpoints/{name}/ping"
            told = [(await api.client.post(ping, json={}, headers=bearer(who))).json() for who in (OF_ACME, OPERATOR)]
            answers[name] = [(each["stage"], each["reason"]) for each in told]
        assert answers["known"][0] == answers["unknown"][0] == ("dns", "dns")
        assert "10.20.30.40" in answers["known"][1][1], "an operator sees the address that was refused"
        assert answers["known"][1][0] == "egress"


async def test_pings_of_one_tenant_do_not_hold_up_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "PING_S", 30.0)
    with silent() as hanging:
        async with serving(tmp_path, tokens=TENANTS) as api:
            await put(api, "slow", as_=OF_ACME, url=hanging)
            await put(api, "quick", as_=OF_ZETA, url="https://10.20.30.40/")
            pings = [
                asyncio.create_task(api.client.post("/v1/endpoints/slow/ping", json={}, headers=bearer(OF_ACME)))
                for _ in range(actions.MOST_PINGS + 1)
            ]
            done, _ = await asyncio.wait(pings, return_when=asyncio.FIRST_COMPLETED)
            assert [each.result().status_code for each in done] == [429], "a tenant has so many at once"
            other = await api.client.post("/v1/endpoints/quick/ping", json={}, headers=bearer(OF_ZETA))
            assert other.status_code == 200
            for each in pings:
                each.cancel()
            await asyncio.wait(pings)


@contextmanager
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}/"


async def test_a_tenant_is_not_told_of_other_endpoints(tmp_path: Path) -> None:
    """Events about the relay name the endpoints of others."""
    async with serving(tmp_path, [endpoint("ops")], tokens=TENANTS, as_=OPERATOR) as api:
        await put(api, "acme", as_=OF_ACME, events=["*"])
        await put(api, "watch", events=["endpoint.*"], rooms=["none"])
        await api.client.post("/v1/endpoints/ops/disable", json={})
        assert await api.outbox.lanes.due_api_endpoints() == ({"watch"}, set())


async def test_a_name_of_another_is_not_taken_over_with_its_record(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TENANTS) as api:
        await put(api, "shared", as_=OF_ACME)
        await (await api.stream(1, room="acme-1")).says("one", "two")
        assert await delete(api, "shared", OF_ACME) == 204
        assert (await put(api, "shared", as_=OF_ZETA)).status_code == 409
        assert (await put(api, "shared", as_=OPERATOR)).status_code == 409
        again = await put(api, "shared", as_=OF_ACME)
        assert again.status_code == 201
        assert (await get(api, "/v1/deliveries", OF_ACME)).json()["deliveries"] == []  # it starts from now


async def test_what_the_configuration_got_under_a_name_is_not_shown_to_its_tenant(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TENANTS) as api:
        await put(api, "crm", as_=OF_ACME)
        api.endpoints.append(endpoint("crm"))
        await api.outbox.lanes.sync_endpoints(["crm"])
        await (await api.stream(1, room="zeta-1")).says("theirs")
        lane = await the_lane(api.outbox.lanes)
        tried = Attempt(lane.id, 1, 1, at=api.outbox.clock.now_ms(), stage="ok", status=200, elapsed_ms=1.0)
        dead = DeadLetter(1, 3, "status 500", 0)
        await api.outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, next_at=0, dead=dead, tries=(tried,)))
        api.endpoints.clear()
        await api.outbox.lanes.sync_endpoints([])
        for path, key in (("/v1/deliveries?state=dead&state=delivered", "deliveries"), ("/v1/attempts", "attempts")):
            assert (await get(api, path, OF_ACME)).json()[key] == []
            assert len((await get(api, path, OPERATOR)).json()[key]) > 0
        assert await delete(api, "crm", OF_ACME) == 204


async def test_a_name_that_the_configuration_had_meanwhile_is_not_taken_with_its_record(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TENANTS) as api:
        await put(api, "crm", as_=OF_ACME)
        await (await api.stream(1, room="acme-1")).says("mine")
        assert await delete(api, "crm", OF_ACME) == 204
        await api.outbox.lanes.sync_endpoints(["crm"])
        await (await api.stream(2, room="zeta-1")).says("theirs")
        await api.outbox.lanes.sync_endpoints([])
        assert (await put(api, "crm", as_=OF_ACME)).status_code == 409


async def test_there_are_at_most_as_many_as_configured(tmp_path: Path) -> None:
    async with serving(tmp_path, most=2) as api:
        assert [(await put(api, name)).status_code for name in ("a", "b", "c")] == [201, 201, 409]
        assert (await put(api, "a", rooms=["x"])).status_code == 200
        assert await delete(api, "a") == 204
        assert (await put(api, "c")).status_code == 201


async def test_one_tenant_cannot_use_up_what_all_may_have(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TENANTS, most=4, most_of_tenant=2) as api:
        made = [await put(api, name, as_=OF_ACME) for name in ("a", "b", "c")]
        assert [answer.status_code for answer in made] == [201, 201, 409]
        assert "max_per_tenant" in made[-1].json()["detail"]
        assert (await put(api, "a", as_=OF_ACME, rooms=["acme-x"])).status_code == 200, "it may change what it has"
        assert (await put(api, "z", as_=OF_ZETA)).status_code == 201
        assert (await put(api, "ours", as_=OPERATOR)).status_code == 201


async def test_the_patterns_of_one_tenant_are_few_together(tmp_path: Path) -> None:
    """They are compared with a room while nothing can be appended."""
    many, long = [f"acme-{n}*a*b*c*d*e" for n in range(5)], ["acme-" + "x" * 200 for _ in range(8)]
    async with serving(tmp_path, tokens=TENANTS, most_of_tenant=3) as api:
        for rooms in (many, long):
            assert (await put(api, "a", as_=OF_ACME)).is_success
            refused = [await put(api, name, as_=OF_ACME, rooms=rooms) for name in ("a", "b")]
            assert [(answer.status_code, "patterns" in answer.text) for answer in refused] == [(409, True)] * 2
            assert (await put(api, "c", as_=OF_ACME, rooms=rooms[:2])).is_success
            assert await delete(api, "c", OF_ACME) == 204
        assert (await put(api, "z", as_=OF_ZETA)).status_code == 201
        assert (await put(api, "ours", as_=OPERATOR, rooms=many)).status_code == 201


async def test_a_tenant_that_makes_and_removes_endpoints_leaves_so_many_records(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TENANTS, most_of_tenant=1) as api:
        await (await api.stream(1, room="acme-1")).says("hello")
        for number in range(10):
            assert (await put(api, f"a{number}", as_=OF_ACME)).status_code == 201
            assert await delete(api, f"a{number}", OF_ACME) == 204
        refused = await put(api, "one-more", as_=OF_ACME)
        assert (refused.status_code, "record" in refused.text) == (409, True)
        assert (await put(api, "z", as_=OF_ZETA)).status_code == 201


async def test_of_many_misspelt_events_not_each_is_looked_up(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TENANTS) as api:
        few = await put(api, "a", as_=OF_ACME, events=["speach.*", "transcript.fin", "speech.*"])
        assert [each["where"] for each in few.json()["errors"]] == ["body.events.0", "body.events.1"]
        for options in ({"events": ["speach.*"] * 64}, {"retry": {"schedule": ["soon"] * 1000}}):
            (mistake,) = (await put(api, "a", as_=OF_ACME, **options)).json()["errors"]
            assert mistake["where"] == "body"


@pytest.mark.parametrize("path", ["/v1/endpoints/crm", "/v1/endpoints/crm/rotate"])
async def test_a_web_page_makes_and_removes_nothing(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as api:
        await put(api, "crm")
        before = await api.log.api_endpoints.every()
        evil = {"Origin": "http://evil.example.org"}
        method = "POST" if path.endswith("rotate") else "PUT"
        for verb in {method, "DELETE"} if method == "PUT" else {method}:
            answer = await api.client.request(verb, path, json={"url": "https://evil.example.org"}, headers=evil)
            assert answer.status_code == 403
        simple = await api.client.request(method, path, content=b"{}", headers={"Content-Type": "text/plain"})
        assert simple.status_code == 415
        assert await api.log.api_endpoints.every() == before
