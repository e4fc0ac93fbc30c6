"""The LiveKit server's own webhooks: only what it has signed has a room looked at."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from livekit import api as livekit_api

from relay.api import access, guard
from relay.api.routes.livekit import MOST_BODY, PATH
from relay.app.metrics import webhook_counter
from relay.capture.livekit import webhook
from relay.capture.livekit.access import Access
from relay.capture.livekit.webhook import EVENTS, LiveKitHints
from relay.config.api import Token
from relay.telemetry.metrics import Counter
from tests.support.api import OPERATOR, TOKENS, Api, serving
from tests.support.livekit.livekit_server import API_KEY, API_SECRET
from tests.support.livekit.webhooks import CONTENT_TYPE, body, headers

ACCESS = Access("ws://127.0.0.1:1", API_KEY, API_SECRET)
JOINED = body("participant_joined", "support-42")
COVERED_BY_ANOTHER = "covered by another process"


@dataclass
class Hinted:
    """An API that takes webhooks, and the rooms that it was told of."""

    api: Api
    rooms: list[str]
    received: Counter

    async def post(self, content: bytes, given: Mapping[str, str]) -> httpx.Response:
        return await self.api.client.post(PATH, content=content, headers=dict(given))


@pytest.fixture(params=[(), TOKENS], ids=["without tokens", "with tokens"])
async def hinted(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Hinted]:
    rooms: list[str] = []
    counter = webhook_counter()
    monkeypatch.setattr(webhook, "LOOK_AGAIN_S", ())

    def look_now(room: str) -> bool:
        rooms.append(room)
        return room != COVERED_BY_ANOTHER

    async with serving(tmp_path, tokens=request.param, livekit=LiveKitHints(ACCESS, look_now, counter)) as api:
        yield Hinted(api, rooms, counter)


async def test_a_room_that_has_started_is_looked_at_again(hinted: Hinted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "LOOK_AGAIN_S", (0.0, 0.01))
    content = body("room_started", "support-42")
    await hinted.post(content, headers(content))
    async with asyncio.timeout(30):
        while hinted.rooms != ["support-42"] * 3:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)


async def test_webhooks_are_counted_by_what_became_of_them(hinted: Hinted) -> None:
    ended, other = body("room_finished", "support-42"), body("participant_joined", "support-43")
    for content, given in ((JOINED, headers(JOINED)), (ended, headers(ended)), (JOINED, {}), (JOINED, headers(other))):
        await hinted.post(content, given)
    outcomes = ("looked", "ignored", "unsigned", "altered")
    assert [hinted.received.value(outcome=each) for each in outcomes] == [1, 1, 1, 1]


@pytest.mark.parametrize("event", sorted(EVENTS))
async def test_what_begins_in_a_room_has_it_looked_at(hinted: Hinted, event: str) -> None:
    content = body(event, "support-42")
    answer = await hinted.post(content, headers(content))
    assert (answer.status_code, answer.json()) == (200, {"looks": True})
    assert hinted.rooms == ["support-42"]


async def test_a_process_that_does_not_cover_the_rooms_says_that_it_does_not_look(hinted: Hinted) -> None:
    content = body("participant_joined", COVERED_BY_ANOTHER)
    answer = await hinted.post(content, headers(content))
    assert (answer.status_code, answer.json()) == (200, {"looks": False})


@pytest.mark.parametrize("event", ["room_finished", "participant_left", "egress_started", "what_comes_later", ""])
async def test_what_needs_no_agent_is_taken_and_changes_nothing(hinted: Hinted, event: str) -> None:
    content = body(event, "support-42")
    answer = await hinted.post(content, headers(content))
    assert (answer.status_code, answer.json()) == (200, {"looks": False})
    assert hinted.rooms == []


def participants_token() -> str:
    """A valid token of this project, which anybody in a room has."""
    grants = livekit_api.VideoGrants(room_join=True, room="support-42")
    return livekit_api.AccessToken(API_KEY, API_SECRET).with_identity("mallory").with_grants(grants).to_jwt()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer " + OPERATOR},
        {"Authorization": participants_token()},
        headers(JOINED, secret="another-secret-another-secret-another"),
        headers(JOINED, key="another-key"),
        headers(JOINED, valid=timedelta(minutes=-10)),
        headers(body("participant_joined", "support-43")),
        {"Authorization": str(headers(JOINED)["Authorization"])[:-2] + "AA"},
    ],
    ids=["none", "empty", "operator", "participant", "secret", "key", "stale", "other body", "altered"],
)
async def test_what_the_server_did_not_sign_is_refused_without_a_reason(
    hinted: Hinted, given: Mapping[str, str]
) -> None:
    answer = await hinted.post(JOINED, {"Content-Type": CONTENT_TYPE, **given})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "Only the LiveKit server may send this, signed with the key in livekit.api_key."
    assert hinted.rooms == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"room": 1}', b'{"room": {"name": "\xc3"}}'])
async def test_a_signed_body_that_is_no_webhook_is_refused(hinted: Hinted, content: bytes) -> None:
    answer = await hinted.post(content, headers(content))
    assert answer.status_code in (200, 401)
    assert hinted.rooms == []


async def test_metadata_as_large_as_livekit_allows_is_taken(hinted: Hinted) -> None:
    content = body("room_started", "support-42", metadata="m" * 4 * 64 * 1024)
    assert len(content) > guard.MOST_BODY
    assert (await hinted.post(content, headers(content))).status_code == 200
    assert hinted.rooms == ["support-42"]


async def test_a_huge_body_is_refused_whether_it_says_its_length_or_not(hinted: Hinted) -> None:
    content = body("room_started", "support-42", metadata="m" * MOST_BODY)

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    given = headers(content)
    told = await hinted.post(content, given)
    untold = await hinted.api.client.post(PATH, content=chunks(), headers=dict(given))
    assert (told.status_code, untold.status_code) == (413, 413)
    assert hinted.rooms == []


async def test_more_webhooks_than_a_token_may_send_are_all_taken(hinted: Hinted) -> None:
    many = int(access.BURST) + 50
    for _ in range(many):
        assert (await hinted.post(JOINED, headers(JOINED))).status_code == 200
    assert len(hinted.rooms) == many


async def test_a_foreign_host_or_page_is_refused_although_signed(hinted: Hinted) -> None:
    host = await hinted.post(JOINED, {**headers(JOINED), "Host": "rebound.example.com"})
    page = await hinted.post(JOINED, {**headers(JOINED), "Origin": "https://evil.example.com"})
    assert (host.status_code, page.status_code) == (421, 403)
    assert hinted.rooms == []


async def test_the_signature_opens_no_other_path_and_no_other_method(hinted: Hinted) -> None:
    given = {**headers(JOINED), "Content-Type": "application/json"}
    post = await hinted.api.client.post("/v1/endpoints/crm/disable", content=b"{}", headers=given)
    get = await hinted.api.client.get(PATH, headers=given)
    demanded = hinted.api.server._at.demands_token
    assert (post.status_code, get.status_code) == ((401, 401) if demanded else (404, 405))


@pytest.mark.parametrize("tokens", [(), TOKENS])
async def test_without_the_key_in_the_configuration_it_is_closed(tmp_path: Path, tokens: tuple[Token, ...]) -> None:
    async with serving(tmp_path, tokens=tokens) as api:
        answer = await api.client.post(PATH, content=JOINED, headers=dict(headers(JOINED)))
        assert answer.status_code in (401, 415)
        document = (await api.client.get("/openapi.json")).json()
        assert PATH not in document["paths"]
