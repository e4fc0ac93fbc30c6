"""Who may not use the HTTP API: web pages, strangers, and those who ask too often."""

import asyncio
import logging
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from relay.api import access
from relay.api.access import Gate, Viewer
from relay.api.guard import foreign_origin, unproven_host
from relay.api.problems import Problem
from relay.config.api import Token
from tests.support.api import OF_CRM, OPERATOR, TOKENS, serving
from tests.support.builders import endpoint

WORD = "a-word-of-alice"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8790", 200),
        ("[::1]:8790", 200),
        ("localhost:8790", 200),
        ("relay.example.com", 200),
        ("evil.example.org", 421),
        ("localhost.evil.example.org", 421),
        ("evil.local", 421),
        ("evil", 421),
    ],
)
async def test_a_page_under_another_name_cannot_read_what_was_said(tmp_path: Path, host: str, status: int) -> None:
    async with serving(tmp_path, hosts=("relay.example.com",)) as api:
        await (await api.stream(1)).says(WORD)
        answer = await api.get("/v1/events", headers={"Host": host})
        assert answer.status_code == status, "a page under a foreign name must not read the log"
        assert (WORD in answer.text) is (status == 200), "words of a conversation reached a page that may not read them"


async def test_names_of_the_local_network_are_known_where_a_token_is_needed(tmp_path: Path) -> None:
    async with serving(tmp_path, tokens=TOKENS[:1], as_=OPERATOR) as api:
        assert (await api.get("/v1/events", headers={"Host": "relay:8790"})).status_code == 200
        assert (await api.get("/v1/events", headers={"Host": "evil.example.org"})).status_code == 421, (
            "a foreign host name must be refused, even with a token"
        )


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example.org"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_page_of_another_origin_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    async with serving(tmp_path) as api:
        await (await api.stream(1)).says(WORD)
        answer = await api.get("/v1/events", headers=headers)
        assert answer.status_code == 403
        assert WORD not in answer.text, "words of a conversation are in an answer without permission"
        assert "Access-Control-Allow-Origin" not in answer.headers, (
            "a page of another origin was allowed to read the answer"
        )


async def test_the_own_page_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        own = {"Origin": api.server.url, "Sec-Fetch-Site": "same-origin"}
        assert (await api.get("/v1/events", headers=own)).status_code == 200, (
            "the relay's own page must be able to read the API"
        )


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer wrong", f"Basic {OPERATOR}", OPERATOR, "Bearer \xff"]
)
async def test_without_a_known_token_nothing_is_answered(tmp_path: Path, authorization: str | None) -> None:
    async with serving(tmp_path, tokens=TOKENS[:1]) as api:
        await (await api.stream(1)).says(WORD)
        headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
        for path in ("/v1/events", "/v1", "/v1/", "/v1/nothing", "/v1/rooms/support/transcript"):
            answer = await api.client.get(path, headers=headers)  # type: ignore[arg-type]
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert WORD not in answer.text, "words of a conversation are in an answer without permission"
        assert (await api.get("/healthz")).status_code == 200, "health needs no token"
        assert (await api.get("/v1/events", headers={"Authorization": f"bearer {OPERATOR}"})).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/events", "//v1/events", "/%761/events", "/v1%2Fevents", "/V1/events", "/./v1/events"]
)
async def test_no_spelling_of_a_path_goes_around_the_token(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, tokens=TOKENS[:1]) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert int((await reader.readline()).split()[1]) in (401, 404)
        writer.close()


async def test_every_answer_has_the_headers_that_protect_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        for path in ("/healthz", "/v1/events", "/v1/nothing", "/openapi.json", "/v1/events?limit=0"):
            headers = (await api.get(path)).headers
            assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Set-Cookie" not in headers
            assert "Server" not in headers


async def test_a_token_that_asks_too_often_has_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BURST", 3.0)
    monkeypatch.setattr(access, "PER_SECOND", 0.001)
    async with serving(tmp_path, [endpoint()], tokens=TOKENS) as api:
        for token, statuses in ((OPERATOR, [200] * 3 + [429]), (OF_CRM, [200] * 3 + [429]), ("x", [401] * 3 + [429])):
            headers = {"Authorization": f"Bearer {token}"}
            answers = [await api.get("/v1/events", headers=headers) for _ in range(4)]
            assert [answer.status_code for answer in answers] == statuses
            assert int(answers[-1].headers["Retry-After"]) > 0


def test_requests_that_are_over_allow_no_more_at_once() -> None:
    gate, crm = Gate(TOKENS, demands_token=True), Viewer("crm", endpoint="crm")
    for _ in range(3 * access.MOST_AT_ONCE):
        with gate.under_way(crm):
            pass
    with ExitStack() as under_way:
        for _ in range(access.MOST_AT_ONCE):
            under_way.enter_context(gate.under_way(crm))
        with pytest.raises(Problem, match="under way") as refused, gate.under_way(crm):
            pass
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})


async def test_one_party_has_few_requests_under_way_and_others_are_answered(tmp_path: Path) -> None:
    """The log is read for one request after the other: requests that take long must not be in the way of others."""
    more = (Token.model_validate({"name": "crm2", "token": OF_CRM + "2", "endpoint": "crm"}),)
    async with serving(tmp_path, [endpoint()], tokens=(*TOKENS, *more)) as api:
        go_on = threading.Event()
        reading = api.log.browsing._reader.query(lambda _: go_on.wait(10))

        def ask(token: str) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(api.get("/v1/events", headers={"Authorization": f"Bearer {token}"}))

        asked = [ask(token) for token in (OF_CRM, OF_CRM + "2") * (access.MOST_AT_ONCE // 2)]
        asked.append(ask(OF_CRM + "2"))
        done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert [each.result().status_code for each in done] == [429]
        others = ask(OPERATOR)
        go_on.set()
        assert {each.status_code for each in await asyncio.gather(*waiting, others)} == {200}
        assert (await ask(OF_CRM)).status_code == 200
        await reading


async def test_a_method_that_a_path_does_not_have_is_a_problem(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        answer = await api.client.delete("/healthz")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
        assert answer.json()["title"] == "Method Not Allowed"
        assert (await api.client.head("/v1/events")).status_code == 200
        assert (await api.client.options("/v1/events")).status_code in (405, 415)


async def test_a_change_needs_json_and_is_never_long(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answer = await api.client.post("/v1/events", content=b"{}", headers={"Content-Type": kind})
            assert answer.status_code == 415
        headers = {"Content-Type": "application/json"}
        assert (await api.client.post("/v1/events", content=b"x" * 70_000, headers=headers)).status_code == 413


async def test_no_answer_or_log_line_repeats_a_token_or_what_was_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "relay")
    marker = "a-marker-in-the-request"
    async with serving(tmp_path, tokens=TOKENS[:1]) as api:
        for headers in ({"Authorization": f"Bearer {marker}"}, {"Authorization": f"Bearer {OPERATOR}"}):
            for path in (f"/v1/{marker}", f"/v1/events?limit={marker}&cursor={marker}", f"/v1/events?type={marker}"):
                answer = await api.get(path, headers=headers)
                assert answer.status_code in (401, 404, 422)
                assert marker not in answer.text, "the answer repeats what a client sent"
                assert OPERATOR not in answer.text, "a token is in an answer"
    assert marker not in caplog.text, "the log repeats what a client sent"
    assert OPERATOR not in caplog.text, "a token is in the log"


async def test_without_the_section_there_is_no_api(tmp_path: Path) -> None:
    from relay.api.server import HttpServer
    from relay.config.api import ListenAddress

    server = HttpServer(ListenAddress("admin.listen", "127.0.0.1:0", (), api=False), {})
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=server.url) as client:
            for path in ("/v1/events", "/openapi.json", "/docs"):
                assert (await client.get(path)).status_code == 404, "without the section `api` there must be no API"
    finally:
        await server.stop()


def test_the_origin_is_compared_with_the_host() -> None:
    assert not foreign_origin(None, None, "a")
    assert not foreign_origin("https://relay.example.com", "same-origin", "relay.example.com")
    assert foreign_origin("http://a:1", None, "a:2")
    assert foreign_origin("file://", None, "")
    assert foreign_origin("chrome-extension://a", None, "a")


def test_a_client_without_a_host_header_is_no_browser() -> None:
    assert not unproven_host(None, ())
