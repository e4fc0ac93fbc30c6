"""A query parameter that does not exist is refused: a misspelt filter must not return everything."""

from pathlib import Path

import pytest

from relay.api import access
from relay.app.metrics import webhook_counter
from relay.capture.livekit.access import Access
from relay.capture.livekit.webhook import LiveKitHints
from tests.support.api import OPERATOR, TOKENS, serving
from tests.support.builders import endpoint
from tests.support.livekit.livekit_server import API_KEY, API_SECRET
from tests.support.livekit.webhooks import body, headers

WEBHOOK = "/v1/livekit/webhook"


async def test_a_misspelt_parameter_is_named_with_those_that_exist(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        stream = await api.stream(1)
        answer = await api.get(f"/v1/streams/{stream.id}/events", params={"afer": 3, "limit": 2})
        assert answer.status_code == 422
        assert answer.json()["errors"] == [
            {"where": "query.afer", "what": "unknown parameter; there are after, endpoint, limit, type"}
        ]
        answer = await api.get("/v1/about?a=1&b=2&a=3")
        none = "unknown parameter; there are none here"
        assert answer.json()["errors"] == [{"where": "query.a", "what": none}, {"where": "query.b", "what": none}]


async def test_a_name_that_looks_like_no_parameter_is_not_repeated(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        answer = await api.get("/v1/rooms", params={"<script>": "", "x" * 200: "", "": ""})
        what = "unknown parameter; there are cursor, endpoint, limit"
        assert answer.json()["errors"] == [{"where": "query", "what": what}]


async def test_every_operation_of_the_api_refuses_what_it_does_not_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "BURST", 1e9)
    async with serving(tmp_path, [endpoint()], tokens=TOKENS, as_=OPERATOR) as api:
        document = (await api.get("/openapi.json", timeout=120)).json()
        tried = 0
        for path, operations in document["paths"].items():
            if not path.startswith("/v1/"):
                continue
            for method, operation in operations.items():
                own = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
                answer = await api.client.request(
                    method,
                    path,
                    params={"statsu": "", **dict.fromkeys(own, "")},
                    headers={"Content-Type": "application/json"},
                )
                assert answer.status_code == 422, (method, path, answer.text)
                refused = [each["where"] for each in answer.json()["errors"] if "unknown" in each["what"]]
                assert refused == ["query.statsu"], (method, path)
                assert all(name in answer.text for name in own)
                tried += 1
        assert tried > 20


async def test_a_token_is_asked_for_before_parameters_are_looked_at(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()], tokens=TOKENS) as api:
        assert (await api.get("/v1/rooms?afer=1")).status_code == 401


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/healthz", "/readyz", "/openapi.json"])
async def test_pages_and_probes_may_have_parameters_of_their_own(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as api:
        assert (await api.get(path, params={"v": "2"})).status_code == 200


async def test_webhooks_of_livekit_may_have_parameters(tmp_path: Path) -> None:
    hints = LiveKitHints(Access("ws://127.0.0.1:1", API_KEY, API_SECRET), lambda _room: True, webhook_counter())
    async with serving(tmp_path, livekit=hints) as api:
        content = body("participant_joined", "support-42")
        answer = await api.client.post(f"{WEBHOOK}?relay=1", content=content, headers=headers(content))
        assert answer.status_code == 200, answer.text
