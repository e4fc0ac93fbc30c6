"""``ui`` and ``demo --open``: the live page beside a command."""

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from relay.clock import SystemClock
from relay.outbox.outbox import Outbox
from tests.support.audio.speech import needs_moonshine, speech
from tests.support.cli import environment
from tests.support.outbox.operator import Folder
from tests.support.page import joins


@asynccontextmanager
async def told(folder: Path, *arguments: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The command, from when it has written the URL of the page; that URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *arguments),
        cwd=folder,
        env=environment(DISPLAY="", WAYLAND_DISPLAY=""),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            found = None
            while found is None:
                line = (await process.stdout.readline()).decode()
                assert line, "it ended without a page"
                found = re.search(r"http://127\.0\.0\.1:\d+", line)
        yield found[0], process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_page_shows_a_log_without_a_relay_and_changes_nothing(tmp_path: Path) -> None:
    Folder(tmp_path)
    outbox = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="relay", clock=SystemClock())
    await outbox.lanes.sync_endpoints(["crm"])
    alice = await joins(outbox, "support", "alice")
    await alice.says("Hello.")
    await outbox.aclose()
    async with told(tmp_path, "ui", "--open") as (url, process), httpx.AsyncClient(base_url=url) as client:
        assert "<title>speech-relay</title>" in (await client.get("/")).text
        assert [room["name"] for room in (await client.get("/v1/rooms")).json()["rooms"]] == ["support"]
        assert (await client.get("/v1/about")).json()["may_change"] is False
        refused = await client.post("/v1/endpoints/crm/disable", json={})
        assert refused.status_code == 404
        assert [each["state"] for each in (await client.get("/v1/endpoints")).json()["endpoints"]] != ["disabled"]
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_a_port_in_use_is_refused_with_what_the_option_allows(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await (await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="relay", clock=SystemClock())).aclose()
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = await folder.run("ui", "--port", str(other.getsockname()[1]))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.endswith("; choose another one\n")


async def test_without_a_log_there_is_nothing_to_show(tmp_path: Path) -> None:
    done = await Folder(tmp_path).run("ui")
    assert (done.returncode, "there is no log yet" in done.stderr) == (1, True)
    assert not (tmp_path / "relay.db").exists()


@needs_moonshine
async def test_the_demo_shows_its_speech_on_the_page_until_a_signal(tmp_path: Path) -> None:
    arguments = ("demo", "--fast", "--open", "--json", str(speech("beckett.wav")))
    async with told(tmp_path, *arguments) as (url, process), httpx.AsyncClient(base_url=url, timeout=30) as client:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while b"stays until Ctrl-C" not in await process.stdout.readline():
                pass
        lines = (await client.get("/v1/rooms/demo/transcript")).json()["lines"]
        assert any(line["text"] for line in lines)
        assert (await client.get("/v1/about")).json()["may_change"] is True
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0
