"""A relay as its HTTP API shows it. Answers become the same values that the log gives."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from relay.cli.output.delivery_blocker import WaitsFor
from relay.clock import epoch_ms, instant
from relay.dispatch.http.outcome import Delivered, Failed, Fault, Outcome
from relay.errors import ConfigError, RelayError
from relay.outbox.log.processes import FleetState, OpenStreams, ProcessState
from relay.outbox.log.resends import Resent
from relay.outbox.operator.redelivery import Retried
from relay.outbox.operator.views import (
    AttemptView,
    DeliveryState,
    DeliveryView,
    EndpointView,
    EventDeliveries,
    EventView,
)
from relay.outbox.records import EndpointState
from relay.telemetry.printable import printable

P = ParamSpec("P")
T = TypeVar("T")

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


@asynccontextmanager
async def api_relay(url: str, token: str | None) -> AsyncIterator["ApiRelay"]:
    """The relay whose API is at this URL. Raises ``ConfigError`` for another kind of URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ConfigError(
            "--api is not the URL of a relay; write it like https://relay.example.com, without credentials"
        )
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token.strip()}"} if token else {})
    async with httpx.AsyncClient(base_url=url.rstrip("/"), headers=headers, timeout=30, trust_env=False) as client:
        yield ApiRelay(client, f"{parts.scheme}://{parts.netloc}", has_token=bool(token))


def _strict(
    ask: Callable[Concatenate["ApiRelay", P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["ApiRelay", P], Coroutine[Any, Any, T]]:
    """Report an answer of another form than a relay's: what answers may be anything."""

    @wraps(ask)
    async def asked(relay: "ApiRelay", /, *args: P.args, **options: P.kwargs) -> T:
        try:
            return await ask(relay, *args, **options)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
            raise relay.strange() from None

    return asked


class ApiRelay:
    """See :class:`relay.cli.relay.OperatedRelay`."""

    def __init__(self, client: httpx.AsyncClient, shown: str, *, has_token: bool) -> None:
        self._client, self._shown, self._has_token = client, shown, has_token

    def strange(self) -> ApiError:
        return ApiError(f"{self._shown} has answered with what is not a relay's API of this version")

    @_strict
    async def fleet(self) -> FleetState:
        found = await self._get("/v1/status")
        newest = found["service"] and _process(found["service"])
        processes = tuple(map(_process, found["processes"]))
        return FleetState(newest, processes, found["duties"], OpenStreams(**found["streams"]))

    @_strict
    async def endpoints(self) -> list[tuple[EndpointView, str]]:
        found = [each async for each in self._pages("/v1/endpoints", "endpoints", {}, limit=None)]
        return [(_endpoint_view(each), each["state"]) for each in found]

    @_strict
    async def disable(self, name: str) -> bool:
        return bool((await self._post(f"/v1/endpoints/{quote(name)}/disable", {}))["changed"])

    @_strict
    async def enable(self, name: str, *, skip: bool) -> tuple[int | None, WaitsFor | None]:
        changed = await self._post(f"/v1/endpoints/{quote(name)}/enable", {"skip": skip})
        return (changed["skipped"] if changed["changed"] else None), None

    @_strict
    async def ping(self, name: str) -> tuple[str, Outcome]:
        found = await self._post(f"/v1/endpoints/{quote(name)}/ping", {})
        outcome: Outcome
        if found["taken"]:
            outcome = Delivered(found["status"], found["elapsed_ms"])
        elif found["stage"] == "fault":
            outcome = Fault(found["elapsed_ms"], found["reason"])
        else:
            detail = found["reason"].partition(": ")[2]
            outcome = Failed(found["stage"], found["elapsed_ms"], found["status"], detail=detail)
        return found["event_id"], outcome

    @_strict
    async def deliveries(
        self, states: Collection[DeliveryState], *, endpoint: str | None, since: int, limit: int
    ) -> list[DeliveryView]:
        params = {"state": [each.value for each in states], "endpoint": endpoint, "since": _iso(since)}
        return [_delivery(each) async for each in self._pages("/v1/deliveries", "deliveries", params, limit=limit)]

    @_strict
    async def delivery(self, event_id: str, *, endpoint: str | None) -> EventDeliveries | None:
        found = await self._get(f"/v1/deliveries/{quote(event_id, safe='')}", {"endpoint": endpoint}, missing=True)
        if found is None:
            return None
        event = {"stream_id": "", "sequence": 0, "room": "", "participant": "", "event": None, **found}
        attempts = (
            AttemptView(n=n, event_id=found["event_id"], type=found["type"], **{**each, "at": _ms(each["at"])})
            for n, each in enumerate(found["attempts"])
        )
        deliveries = tuple(map(_delivery, found["deliveries"]))
        return EventDeliveries(_event({**event, "id": found["event_id"]}), deliveries, tuple(attempts))

    @_strict
    async def retry(self, event_id: str, endpoint: str) -> tuple[Retried, WaitsFor | None]:
        path = f"/v1/deliveries/{quote(event_id, safe='')}/retry"
        answer = await self._request("POST", path, json={"endpoint": endpoint})
        if answer.status_code == 404:
            return Retried.UNKNOWN, None
        if answer.status_code == 409:  # delivered, or emptied: there is nothing to try again
            return Retried.SETTLED, None
        return Retried(self._content(answer)["outcome"]), None

    @_strict
    async def resend(
        self, endpoint: str, *, since: int, until: int | None, pattern: str, room: str, dry_run: bool
    ) -> tuple[Resent, WaitsFor | None]:
        order = {"since": _iso(since), "type": pattern, "room": room, "dry_run": dry_run}
        order |= {} if until is None else {"until": _iso(until)}
        found = await self._post(f"/v1/endpoints/{quote(endpoint)}/resend", order)
        return Resent(found["events"], found["streams"], found["pruned"]), None

    @_strict
    async def events(self, *, room: str, participant: str, pattern: str, since: int, limit: int) -> list[EventView]:
        params = {"room": room, "participant": participant, "type": pattern, "since": _iso(since)}
        return [_event(each) async for each in self._pages("/v1/events", "events", params, limit=limit)]

    @_strict
    async def event(self, event_id: str) -> EventView | None:
        found = await self._get(f"/v1/events/{quote(event_id, safe='')}", missing=True)
        return None if found is None else _event(found)

    async def _pages(
        self, path: str, key: str, params: dict[str, Any], *, limit: int | None
    ) -> AsyncIterator[dict[str, Any]]:
        """The items of a list, page by page; at most ``limit``."""
        cursor, left = None, limit
        for _ in range(MOST_PAGES):
            most = PAGE if left is None else min(PAGE, left)
            page = await self._get(path, {**params, "cursor": cursor, "limit": most})
            if len(page[key]) > most or (cursor is not None and page["next"] == cursor):
                raise self.strange()
            for each in page[key]:
                yield each
            left = None if left is None else left - len(page[key])
            if (cursor := page["next"]) is None or left == 0:
                return
        raise ApiError(f"{self._shown} has sent {MOST_PAGES} pages and has more: ask for less, such as by --since")

    async def _get(self, path: str, params: dict[str, Any] | None = None, *, missing: bool = False) -> Any:
        """The answer's content; with ``missing``, None for one that is not found."""
        given = {key: value for key, value in (params or {}).items() if value is not None}
        answer = await self._request("GET", path, params=given)
        return None if missing and answer.status_code == 404 else self._content(answer)

    async def _post(self, path: str, order: dict[str, Any]) -> Any:
        return self._content(await self._request("POST", path, json=order))

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        for tries in range(1, _TRIES + 1):
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await self._read(method, path, **options)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
                late = isinstance(error, httpx.TimeoutException | TimeoutError)
                why = "it does not answer in time" if late else _line(str(error)) or type(error).__name__
                raise ApiError(f"{self._shown} cannot be asked: {why}") from None
            if answer.status_code != 429 or tries == _TRIES:
                return answer
            wait = answer.headers.get("Retry-After", "")
            await asyncio.sleep(min(int(wait), _LONGEST_WAIT_S) if wait.isdecimal() and len(wait) < 3 else 1)
        raise AssertionError  # the last try returns

    async def _read(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer with its whole content, unless that is too long."""
        async with self._client.stream(method, path, **options) as answer:
            content = bytearray()
            async for part in answer.aiter_bytes(1 << 16):
                content += part
                if len(content) > MOST_BYTES:
                    raise ApiError(f"{self._shown} has sent more than {MOST_BYTES >> 20} MB at once: this is no relay")
            # of the headers only this one matters, and none that says how the content was encoded
            kept = {"Retry-After": answer.headers["Retry-After"]} if "Retry-After" in answer.headers else {}
            return httpx.Response(answer.status_code, headers=kept, content=bytes(content))

    def _content(self, answer: httpx.Response) -> Any:
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


def _line(text: str) -> str:
    """On one line, and without what controls a terminal: what answers may not be the relay."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


def _process(found: dict[str, Any]) -> ProcessState:
    times = {key: _ms(found[key]) for key in ("started_at", "ready_at", "seen_at", "stopped_at")}
    return ProcessState(**{field.name: found[field.name] for field in fields(ProcessState)} | times)


def _ms(text: str | None) -> int | None:
    return None if text is None else epoch_ms(datetime.fromisoformat(text))


def _iso(moment: int) -> str | None:
    return instant(moment).isoformat() if moment else None


def _endpoint_view(found: dict[str, Any]) -> EndpointView:
    state = EndpointState(
        name=found["name"],
        active=found["state"] not in ("new", "not in config"),
        disabled_at=_ms(found["disabled_at"]),
        disabled_because=found["disabled_because"],
        failing_since=_ms(found["failing_since"]),
        succeeded_at=_ms(found["last_success"]),
        failed_at=_ms(found["last_failure"]),
        last_error=found["last_error"],
        resting_until=_ms(found["resting_until"]),
    )
    counts = {key: found[key] for key in ("pending", "retrying", "parked", "dead", "resending")}
    return EndpointView(
        state=state,
        oldest_pending=_ms(found["oldest_pending"]),
        more_pending=found["pending_at_least"],
        **counts,
    )


def _delivery(found: dict[str, Any]) -> DeliveryView:
    return DeliveryView(
        endpoint=found["endpoint"],
        state=DeliveryState(found["state"]),
        at=_ms(found["since"]) or 0,
        event_id=found["event_id"],
        type=found["type"],
        room=found["room"],
        participant=found["participant"],
        stream_id=found["stream_id"],
        sequence=found["sequence"],
        attempts=found["attempts"],
        next_at=_ms(found["next_attempt"]),
        reason=found["reason"],
        failed_at=_ms(found["last_failure"]),
    )


def _event(found: dict[str, Any]) -> EventView:
    return EventView(
        id=found["id"],
        type=found["type"],
        stream_id=found["stream_id"],
        sequence=found["sequence"],
        room=found["room"],
        participant=found["participant"],
        emitted_at=_ms(found["emitted_at"]) or 0,
        body=b"" if found["event"] is None else json.dumps(found["event"]).encode(),
    )
