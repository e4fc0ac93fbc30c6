"""The baseline for the outbox: the same bodies, signed, one POST in flight per lane, nothing stored.

Two transports. The relay's own is the stricter baseline. The reference is httpx-aiohttp's transport from the package
index, which a service would use that takes httpx's transport interface and calls it without the client.
"""

import asyncio
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport as ReferenceTransport

from bench.producer import producing_beside
from bench.receiver import Receiver
from bench.workload import Load, endpoint
from relay.dispatch.endpoint.route import Route
from relay.dispatch.http.transport import Headers, open_transport
from relay.ids import new_id
from relay.outbox.records import record

Post = Callable[[Headers, bytes], Awaitable[object]]


@asynccontextmanager
async def own(route: Route) -> AsyncIterator[Post]:
    """The relay's own transport."""
    transport = open_transport(route.config)
    yield lambda headers, body: transport.post(route.url, headers, body, route.timeout)
    await transport.aclose()


@asynccontextmanager
async def reference(route: Route) -> AsyncIterator[Post]:
    """httpx-aiohttp's transport, without costly features that are not needed here, as in the relay's own."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
        skip_auto_headers=("Accept", "Accept-Encoding"),
    )
    transport = ReferenceTransport(client=session)

    async def post(headers: Headers, body: bytes) -> None:
        async with asyncio.timeout(route.timeout):
            response = await transport.handle_async_request(
                httpx.Request("POST", route.url, headers=headers, content=body)
            )
            await response.aread()

    yield post
    await session.close()


Transport = Callable[[Route], AbstractAsyncContextManager[Post]]


async def bare(transport: Transport, receiver: Receiver, load: Load) -> float:
    """Events per second by the transport alone. Concurrent appends go to a log without readers."""
    route = Route(endpoint("bare", receiver.url("bare"), load.concurrency))
    streams = [new_id("str") for _ in range(load.lanes)]
    ready = deque(deque(record(event) for event in load.finals(stream)) for stream in streams)

    async def work(post: Post) -> None:
        while ready:
            lane = ready.popleft()
            one = lane.popleft()
            await post(route.headers(one, one.body, one.sequence - 1, time.time_ns() // 1_000_000), one.body)
            if lane:
                ready.append(lane)

    with tempfile.TemporaryDirectory() as folder:
        async with transport(route) as post, AsyncExitStack() as stack:
            await producing_beside(stack, f"sqlite:///{folder}/relay.db", load.producing)
            began = time.perf_counter()
            await asyncio.gather(*(work(post) for _ in range(load.concurrency)))
            return load.events / (time.perf_counter() - began)
