"""A relay as its HTTP API shows it. Answers become the same values that the log gives."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import wraps
from itertools import takewhile
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

import httpx

from relay.cli.api_client import PAGE, ApiClient, ApiError
from relay.cli.api_views import (
    appended_view,
    delivery_view,
    endpoint_view,
    epoch,
    event_view,
    iso,
    process_state,
)
from relay.cli.output.delivery_blocker import WaitsFor
from relay.dispatch.http.outcome import Delivered, Failed, Fault, Outcome
from relay.errors import ConfigError
from relay.outbox.log.processes import FleetState, OpenStreams
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

P = ParamSpec("P")
T = TypeVar("T")

_EVERY_S = 0.5
_MOST_NEW = 20
"""Pages of attempts between two looks."""


@asynccontextmanager
async def api_relay(url: str, token: str | None) -> AsyncIterator["ApiRelay"]:
    """The relay whose API is at this URL. Raises ``ConfigError`` for another kind of URL."""
    parts = _parts(url)
    if token and not (token.strip().isascii() and token.strip().isprintable()):
        raise ConfigError("SPEECH_RELAY_API_TOKEN has a character that no header may have; copy the token once more")
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token.strip()}"} if token else {})
    async with httpx.AsyncClient(base_url=url.rstrip("/"), headers=headers, timeout=30, trust_env=False) as client:
        yield ApiRelay(ApiClient(client, f"{parts.scheme}://{parts.netloc}", has_token=bool(token)))


def _parts(url: str) -> SplitResult:
    with suppress(ValueError, httpx.InvalidURL):
        parts, _ = urlsplit(url), httpx.URL(url)
        given = parts.username or parts.password or parts.port == 0
        if parts.scheme in ("http", "https") and parts.hostname and not given:
            return parts
    raise ConfigError("--api is not the URL of a relay; write it like https://relay.example.com, without credentials")


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

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def strange(self) -> ApiError:
        return self._client.strange()

    @_strict
    async def fleet(self) -> FleetState:
        found = await self._client.get("/v1/status")
        newest = found["service"] and process_state(found["service"])
        processes = tuple(map(process_state, found["processes"]))
        held_up = {each["id"]: count for each in found["processes"] if (count := each.get("lanes_held_up", 0))}
        return FleetState(newest, processes, found["duties"], OpenStreams(**found["streams"]), held_up)

    @_strict
    async def endpoints(self) -> list[tuple[EndpointView, str]]:
        found = [each async for each in self._client.pages("/v1/endpoints", "endpoints", {}, limit=None)]
        return [(endpoint_view(each), each["state"]) for each in found]

    @_strict
    async def disable(self, name: str) -> bool:
        return bool((await self._client.post(f"/v1/endpoints/{quote(name)}/disable", {}))["changed"])

    @_strict
    async def enable(self, name: str, *, skip: bool) -> tuple[int | None, WaitsFor | None]:
        changed = await self._client.post(f"/v1/endpoints/{quote(name)}/enable", {"skip": skip})
        return (changed["skipped"] if changed["changed"] else None), None

    @_strict
    async def ping(self, name: str) -> tuple[str, Outcome]:
        found = await self._client.post(f"/v1/endpoints/{quote(name)}/ping", {})
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
        params = {"state": [each.value for each in states], "endpoint": endpoint, "since": iso(since)}
        pages = self._client.pages("/v1/deliveries", "deliveries", params, limit=limit)
        return [delivery_view(each) async for each in pages]

    @_strict
    async def delivery(self, event_id: str, *, endpoint: str | None) -> EventDeliveries | None:
        found = await self._client.get(
            f"/v1/deliveries/{quote(event_id, safe='')}", {"endpoint": endpoint}, missing=True
        )
        if found is None:
            return None
        event = {"stream_id": "", "sequence": 0, "room": "", "participant": "", "event": None, **found}
        attempts = (
            AttemptView(n=n, event_id=found["event_id"], type=found["type"], **{**each, "at": epoch(each["at"])})
            for n, each in enumerate(found["attempts"])
        )
        deliveries = tuple(map(delivery_view, found["deliveries"]))
        return EventDeliveries(event_view({**event, "id": found["event_id"]}), deliveries, tuple(attempts))

    @_strict
    async def retry(self, event_id: str, endpoint: str) -> tuple[Retried, WaitsFor | None]:
        path = f"/v1/deliveries/{quote(event_id, safe='')}/retry"
        answer = await self._client.request("POST", path, json={"endpoint": endpoint})
        if answer.status_code == 404:
            return Retried.UNKNOWN, None
        if answer.status_code == 409:  # delivered, or emptied: there is nothing to try again
            return Retried.SETTLED, None
        return Retried(self._client.content(answer)["outcome"]), None

    @_strict
    async def names(self, endpoint: str | None) -> list[str]:
        if endpoint is not None:
            return [endpoint]
        return [view.state.name for view, _ in await self.endpoints()]

    async def retry_dead(self, name: str, *, since: int) -> AsyncIterator[int]:
        async for count in self._client.steps(f"/v1/endpoints/{quote(name)}/dead/retry", {"since": iso(since)}):
            yield count

    async def discard_dead(self, name: str, *, since: int) -> AsyncIterator[int]:
        async for count in self._client.steps(f"/v1/endpoints/{quote(name)}/dead/discard", {"since": iso(since)}):
            yield count

    async def waits_for(self, name: str) -> WaitsFor | None:
        return None

    async def remove(self, name: str) -> None:
        await self._client.delete(f"/v1/endpoints/{quote(name)}")

    @_strict
    async def resend(
        self, endpoint: str, *, since: int, until: int | None, pattern: str, room: str, dry_run: bool
    ) -> tuple[Resent, WaitsFor | None]:
        order = {"since": iso(since), "type": pattern, "room": room, "dry_run": dry_run}
        order |= {} if until is None else {"until": iso(until)}
        found = await self._client.post(f"/v1/endpoints/{quote(endpoint)}/resend", order)
        return Resent(found["events"], found["streams"], found["pruned"]), None

    @_strict
    async def events(self, *, room: str, participant: str, pattern: str, since: int, limit: int) -> list[EventView]:
        params = {"room": room, "participant": participant, "type": pattern, "since": iso(since)}
        return [event_view(each) async for each in self._client.pages("/v1/events", "events", params, limit=limit)]

    async def appended(self, *, room: str, participant: str, pattern: str) -> AsyncIterator[EventView]:
        params = {"room": room, "participant": participant, "type": pattern}
        async for text in self._client.stream("/v1/events/stream", params):
            try:
                view = appended_view(json.loads(text), text)
            except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
                raise self.strange() from None
            yield view

    async def attempted(self, endpoint: str | None) -> AsyncIterator[AttemptView]:
        newest = None
        while True:
            found = await self._attempts(endpoint, newest)
            if newest is not None:
                for attempt in reversed(found):
                    yield attempt
            newest = found[0].n if found else newest or 0
            await asyncio.sleep(_EVERY_S)

    @_strict
    async def _attempts(self, endpoint: str | None, after: int | None) -> list[AttemptView]:
        """Those after this number, newest first; without one, the newest."""
        cursor, found = None, list[AttemptView]()
        for _ in range(_MOST_NEW):
            params = {"endpoint": endpoint, "cursor": cursor, "limit": 1 if after is None else PAGE}
            page = await self._client.get("/v1/attempts", params)
            new = (AttemptView(**{**each, "at": epoch(each["at"])}) for each in page["attempts"])
            found += takewhile(lambda each: after is None or each.n > after, new)
            cursor = page["next"]
            if after is None or cursor is None or cursor <= after + 1:
                break
        return found

    @_strict
    async def event(self, event_id: str) -> EventView | None:
        found = await self._client.get(f"/v1/events/{quote(event_id, safe='')}", missing=True)
        return None if found is None else event_view(found)
