"""Asks an HTTP API whose answers may be anything: they are bounded, and what is wrong is said in one line."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

from relay.errors import RelayError
from relay.telemetry.printable import printable

PAGE = 500
MOST_PAGES = 2_000
MOST_BYTES = 64 << 20
"""Of one answer, decompressed: a page of events has 8 MB, or one event that is longer."""
ANSWER_S = 60.0
"""Time for one answer."""
_LONGEST_WAIT_S = 10
_LONGEST_LINE = 500
_TRIES = 5
"""Requests until a token that sends too much is no longer waited for."""


class ApiError(RelayError):
    """The relay could not be asked, or has refused."""


class ApiClient:
    """Requests to one relay. Every method raises :class:`ApiError`."""

    def __init__(self, client: httpx.AsyncClient, shown: str, *, has_token: bool) -> None:
        """``shown``: the relay's address, for people."""
        self._client, self._shown, self._has_token = client, shown, has_token

    def strange(self) -> ApiError:
        """The error for an answer of another form than a relay's."""
        return ApiError(f"{self._shown} has not answered as a relay's API of this version")

    async def pages(
        self, path: str, key: str, params: dict[str, Any], *, limit: int | None
    ) -> AsyncIterator[dict[str, Any]]:
        """The items of a list, page by page; at most ``limit``."""
        cursor, left = None, limit
        for _ in range(MOST_PAGES):
            most = PAGE if left is None else min(PAGE, left)
            page = await self.get(path, {**params, "cursor": cursor, "limit": most})
            if len(page[key]) > most or (cursor is not None and page["next"] == cursor):
                raise self.strange()
            for each in page[key]:
                yield each
            left = None if left is None else left - len(page[key])
            if (cursor := page["next"]) is None or left == 0:
                return
        raise ApiError(f"{self._shown} has sent {MOST_PAGES} pages and has more: ask for less, such as by --since")

    async def get(self, path: str, params: dict[str, Any] | None = None, *, missing: bool = False) -> Any:
        """The answer's content; with ``missing``, None for one that is not found."""
        given = {key: value for key, value in (params or {}).items() if value is not None}
        answer = await self.request("GET", path, params=given)
        return None if missing and answer.status_code == 404 else self.content(answer)

    async def post(self, path: str, order: dict[str, Any]) -> Any:
        return self.content(await self.request("POST", path, json=order))

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        for tries in range(1, _TRIES + 1):
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await self._read(method, path, **options)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
                raise self._unanswered(error) from None
            if answer.status_code != 429 or tries == _TRIES:
                return answer
            wait = answer.headers.get("Retry-After", "")
            await asyncio.sleep(min(int(wait), _LONGEST_WAIT_S) if wait.isdecimal() and len(wait) < 3 else 1)
        raise AssertionError  # the last try returns

    async def _read(self, method: str, path: str, **options: Any) -> httpx.Response:
        async with self._client.stream(method, path, **options) as answer:
            return await self._whole(answer)

    async def _whole(self, answer: httpx.Response) -> httpx.Response:
        """The answer with its whole content, unless that is too long."""
        content = bytearray()
        async for part in answer.aiter_bytes(1 << 16):
            content += part
            if len(content) > MOST_BYTES:
                raise self._too_long()
        # of the headers only these matter, and none that says how the content was encoded
        kept = {name: answer.headers[name] for name in ("Retry-After", "Location") if name in answer.headers}
        return httpx.Response(answer.status_code, headers=kept, content=bytes(content))

    def _too_long(self) -> ApiError:
        return ApiError(f"{self._shown} has sent more than {MOST_BYTES >> 20} MB at once: this is no relay")

    def _unanswered(self, error: Exception) -> ApiError:
        late = isinstance(error, httpx.TimeoutException | TimeoutError)
        why = "it does not answer in time" if late else _line(str(error)) or type(error).__name__
        return ApiError(f"{self._shown} cannot be asked: {why}")

    def content(self, answer: httpx.Response) -> Any:
        try:
            content = answer.json()
        except (ValueError, RecursionError):
            content = None
        if answer.is_success and isinstance(content, dict):
            return content
        if answer.status_code == 401:
            what = "does not know the token in" if self._has_token else "requires a token: put one of its api.tokens in"
            raise ApiError(f"{self._shown} {what} SPEECH_RELAY_API_TOKEN")
        if answer.is_redirect:
            raise ApiError(f"{self._shown} redirects to another address: give --api the relay's own")
        problem = content if isinstance(content, dict) else {}
        mistakes = "; ".join(f"{each['where']} {each['what']}" for each in problem.get("errors") or ())
        what = " ".join(filter(None, (str(problem.get("detail") or "this is not a relay's API"), mistakes)))
        raise ApiError(f"{self._shown} has answered {answer.status_code}: {_line(what)}")

    async def stream(self, path: str, params: dict[str, str]) -> AsyncIterator[str]:
        """The data of server-sent events, until the relay ends them."""
        try:
            async with self._client.stream("GET", path, params=params) as answer:
                if not answer.is_success or "event-stream" not in answer.headers.get("Content-Type", ""):
                    self.content(await self._whole(answer))
                    raise self.strange()
                rest = b""
                async for part in answer.aiter_bytes():
                    *lines, rest = (rest + part).split(b"\n")
                    for line in lines:
                        if line.startswith(b"data: "):
                            yield line.removeprefix(b"data: ").decode(errors="replace")
                    if len(rest) > MOST_BYTES:
                        raise self._too_long()
        except httpx.HTTPError as error:
            raise self._unanswered(error) from None
        raise ApiError(f"{self._shown} has ended the stream: it stops, or this command was too slow")

    async def delete(self, path: str) -> None:
        answer = await self.request("DELETE", path)
        if answer.status_code != 204:
            self.content(answer)
            raise self.strange()

    async def steps(self, path: str, order: dict[str, Any]) -> AsyncIterator[int]:
        """Ask again until nothing is left; how many events each request was about."""
        for _ in range(MOST_PAGES):
            done = await self.post(path, order)
            if not isinstance(done.get("events"), int) or not isinstance(done.get("more"), bool):
                raise self.strange()
            if done["events"]:
                yield done["events"]
            if not done["more"]:
                return


def _line(text: str) -> str:
    """On one line, and without what controls a terminal: what answers may not be the relay."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
