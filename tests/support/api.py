"""The HTTP API on a real log: a server, a client, and streams to read."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx

from relay.api.appends import Appends
from relay.api.backend import Backend, LiveKitWebhooks, Playground
from relay.api.routes.all import routers_of
from relay.api.server import HttpServer
from relay.clock import SystemClock, instant
from relay.config.api import ListenAddress, Token
from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.directory import ApiEndpointDirectory
from relay.events.envelope import RoomRef, StreamEvent, StreamRef, UtteranceRef
from relay.events.samples import SAMPLES
from relay.ids import event_id
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.operator.access import Log, open_log
from relay.outbox.outbox import Outbox
from tests.support.builders import a_participant, stream_id, track
from tests.support.outbox.outbox_store import write_migrated

OPERATOR, OF_CRM = "operator-" + "o" * 24, "of-crm-" + "c" * 24
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts no authority: otherwise each client loads them for 40 ms."""

BEGIN = 1_800_000_000_000


@dataclass
class Api:
    """A server with its client."""

    outbox: Outbox
    log: Log
    server: HttpServer
    client: httpx.AsyncClient
    stop: asyncio.Event
    endpoints: list[Endpoint]
    directory: ApiEndpointDirectory

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def stream(self, number: int, room: str = "support", participant: str = "alice") -> "Speaking":
        log = await self.outbox.open_stream(track(number, participant, room))
        return Speaking(log, number, room, participant)


class Speaking:
    """A stream of one participant, to which utterances are appended."""

    def __init__(self, log: StreamLog, number: int, room: str, participant: str) -> None:
        self.log, self.number, self.room, self.participant = log, number, room, participant
        self.id = stream_id(number)

    async def says(self, *texts: str, at: int = BEGIN, kind: str = "utterance.completed") -> list[StreamEvent]:
        first = self.log.last_sequence + 1
        events = [self.event(first + n, text, at + 1000 * n, kind) for n, text in enumerate(texts)]
        await self.log.append(events)
        return events

    def event(self, sequence: int, text: str, at: int, kind: str) -> StreamEvent:
        sample = SAMPLES[kind]
        assert isinstance(sample, StreamEvent)
        data = sample.data.model_copy(update={"text": text, "duration_ms": 500})  # type: ignore[attr-defined]
        moments = dict.fromkeys(("occurred_at", "detected_at", "emitted_at"), instant(at))
        return sample.model_copy(
            update={
                "id": event_id(self.id, sequence),
                "timestamp": instant(at),
                "room": RoomRef(sid=f"RM_{self.room}", name=self.room),
                "participant": a_participant(self.participant),
                "stream": StreamRef(
                    id=self.id, sequence=sequence, track_sid=f"TR_{self.number}", track_source="microphone"
                ),
                "utterance": UtteranceRef(id=f"utt_{self.number}_{sequence}", index=sequence, revision=1),
                "timing": sample.timing.model_copy(update=moments),
                "data": data,
            }
        )


TOKENS = tuple(
    Token.model_validate(each)
    for each in ({"name": "ops", "token": OPERATOR}, {"name": "crm", "token": OF_CRM, "endpoint": "crm"})
)


@asynccontextmanager
async def serving(
    folder: Path,
    endpoints: Sequence[Endpoint] = (),
    *,
    tokens: Sequence[Token] = (),
    hosts: tuple[str, ...] = (),
    as_: str | None = None,
    livekit: LiveKitWebhooks | None = None,
    most: int = 10_000,
    most_of_tenant: int = 1_000,
    playground: Playground | None = None,
) -> AsyncIterator[Api]:
    """The API on a new log. ``as_``: the token that the client sends. ``livekit``: takes the server's webhooks."""
    url, clock, stop = f"sqlite:///{folder}/relay.db", SystemClock(), asyncio.Event()
    known = list(endpoints)
    if not (folder / "relay.db").exists():
        write_migrated(folder)
    outbox = await Outbox.open(url, name="relay", clock=clock)
    try:
        await outbox.lanes.sync_endpoints([each.name for each in known])
        async with open_log(url, clock) as log:
            at = ListenAddress(
                "api.listen", "127.0.0.1:0", hosts, api=True, tokens=tuple(tokens), livekit_webhook=livekit is not None
            )
            appends = Appends(stop)
            doorbell = outbox.listen(lambda growth: appends.ring(growth))
            directory = ApiEndpointDirectory(log.api_endpoints, allow=[ip_network("127.0.0.0/8")])
            backend = Backend(
                log,
                lambda: known,
                clock,
                stop,
                appends,
                playground=playground,
                livekit=livekit,
                directory=directory,
                tenants=at.tenants,
                most=most,
                most_of_tenant=most_of_tenant,
            )
            server = HttpServer(at, {}, routers=routers_of(backend))
            await server.start()
            headers = {"Authorization": f"Bearer {as_}"} if as_ else {}
            try:
                async with httpx.AsyncClient(
                    base_url=server.url, headers=headers, timeout=20, verify=_NO_TLS
                ) as client:
                    yield Api(outbox, log, server, client, stop, known, directory)
            finally:
                stop.set()
                doorbell.close()
                await server.stop()
    finally:
        await outbox.aclose()
