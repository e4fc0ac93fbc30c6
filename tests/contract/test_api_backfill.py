"""A receiver that was killed fetches what it has missed."""

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from relay.app.delivery import delivering
from relay.clock import SystemClock
from tests.support.api import OF_CRM, TOKENS, Api, serving
from tests.support.builders import endpoint

EVENTS = 60

RECEIVER = """
import asyncio, json, sys
from aiohttp import web

async def main(port, file):
    async def take(request):
        event = await request.json()
        with open(file, "a") as kept:
            kept.write(json.dumps([event["stream"]["sequence"], request.headers["relay-previous-sequence"],
                                   event["id"]]) + chr(10))
        return web.Response()
    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(port), reuse_address=True).start()
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def receiver(port: int, file: Path) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RECEIVER, str(port), str(file), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def taken(file: Path) -> list[tuple[int, int, str]]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(sequence), int(previous), event_id) for sequence, previous, event_id in map(json.loads, lines)]


async def until(file: Path, count: int) -> None:
    async with asyncio.timeout(30):
        while len(taken(file)) < count:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)


async def backfilled(api: Api, stream_id: str, after: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    following: int | None = after
    while following is not None:
        answer = await api.get(f"/v1/streams/{stream_id}/events", params={"after": following, "limit": 7})
        assert answer.status_code == 200
        page = answer.json()
        found += [(event["stream"]["sequence"], event["id"]) for event in page["events"]]
        following = page["next"]
    return found


async def test_a_receiver_that_was_killed_has_every_event_once_and_in_order(tmp_path: Path) -> None:
    """It loses what it had taken, sees the gap in relay-previous-sequence, and reads the rest over HTTP."""
    port = await free_port()
    crm = endpoint(url=f"http://127.0.0.1:{port}/", breaker=None)
    file, clock = tmp_path / "kept", SystemClock()
    async with serving(tmp_path, [crm], tokens=TOKENS, as_=OF_CRM) as api:
        alice = await api.stream(1)
        sent = await alice.says(*(f"word {n}" for n in range(EVENTS // 2)))
        async with delivering(api.outbox, [crm], clock, grace_s=1):
            async with receiver(port, file) as process:
                await until(file, EVENTS // 2)
                process.kill()
                await process.wait()
            lost = file.read_text().splitlines()[: EVENTS // 6]
            file.write_text("".join(line + "\n" for line in lost))  # the others were not on its disk yet
            async with receiver(port, file):
                sent += await alice.says(*(f"word {n}" for n in range(EVENTS // 2)))
                await until(file, EVENTS // 6 + EVENTS // 2)
        have: dict[int, str] = {}
        gaps = 0
        for sequence, previous, event_id in taken(file):
            newest = max(have, default=0)
            if previous > newest:
                gaps += 1
                have |= dict(await backfilled(api, alice.id, newest))
            have.setdefault(sequence, event_id)
        assert gaps == 1
        assert list(have.items()) == [(event.stream.sequence, event.id) for event in sent], (
            "every event must be there once and in order, although the receiver was killed"
        )


async def free_port() -> int:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = int(runner.addresses[0][1])
    await runner.cleanup()
    return port
