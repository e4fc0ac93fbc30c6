"""``dispatch``: delivers from a log in a file what others append, without LiveKit, and alone."""

import asyncio
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from relay.app.service import run_service
from relay.clock import SystemClock
from relay.config.models import Config
from relay.dispatch.signing import new_secret
from relay.outbox.log.api_endpoints import NewApiEndpoint
from relay.outbox.log.audience import StreamAudience
from relay.outbox.outbox import Outbox
from relay.outbox.schema import lanes
from tests.support.builders import new_stream, run
from tests.support.cli import environment, speech_relay, speech_relay_process
from tests.support.dispatch.receiver import Receiver
from tests.support.outbox.outbox_store import rows, until


async def test_a_dispatcher_needs_no_livekit_and_refuses_a_second_one(receiver: Receiver, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/relay.db"
    endpoint = {"name": "crm", "url": receiver.url, "events": ["*"], "signing": "none"}
    (tmp_path / "config.yaml").write_text(json.dumps({"outbox": {"url": url}, "endpoints": [endpoint]}))
    worker = await Outbox.open(url, name="worker", clock=SystemClock())
    await worker.lanes.sync_endpoints(["crm"], only_add=True)
    log = await worker.open_stream(new_stream())
    command = (sys.executable, "-m", "relay", "dispatch")
    dispatcher = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=environment())
    try:
        await log.append(run(1, 1, 3))
        await receiver.wait(3)
        second = await asyncio.to_thread(speech_relay_process, "dispatch", cwd=tmp_path)
        assert second.returncode == 2
        assert second.stderr.splitlines()[-1] == (
            f"outbox {tmp_path}/relay.db: another relay has it: stop that one, or give this one its own outbox.url"
        )
        status = await asyncio.to_thread(speech_relay, "status", "--json", cwd=tmp_path)
        shown = json.loads(status.stdout)
        assert (status.returncode, shown["relay"]) == (1, "not ready")
        assert "no worker runs: no room is heard" in shown["waits_for"]
        assert [each["role"] for each in shown["processes"]] == ["dispatch"]
        dispatcher.terminate()
        async with asyncio.timeout(60):
            assert await dispatcher.wait() == 0
    finally:
        if dispatcher.returncode is None:
            dispatcher.kill()
            await dispatcher.wait()
        await worker.aclose()


async def test_a_second_relay_is_refused_before_it_loads_livekit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/relay.db"
    (tmp_path / "config.yaml").write_text(f"outbox: {{url: '{url}'}}\nendpoints: []\n")
    first = await Outbox.open(url, name="relay", clock=SystemClock(), sole=True)
    try:
        second = await asyncio.to_thread(speech_relay_process, "run", cwd=tmp_path)
        taken = f"outbox {tmp_path}/relay.db: another relay has it: stop that one, or give this one its own outbox.url"
        # what it also lacks, the server's address, is found with LiveKit
        assert (second.returncode, second.stdout, second.stderr) == (2, "", f"{taken}\n")
    finally:
        await first.aclose()
    third = await asyncio.to_thread(speech_relay_process, "run", cwd=tmp_path)
    assert third.stderr.startswith("Not set: livekit.url")


async def test_a_worker_s_file_adds_endpoints_and_removes_none(tmp_path: Path) -> None:
    outbox = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="worker", clock=SystemClock())
    try:
        await outbox.lanes.sync_endpoints(["bi", "crm"])
        await outbox.lanes.sync_endpoints(["new"], only_add=True)
        await outbox.open_stream(new_stream())
        assert {each for row in await rows(outbox, lanes) for each in row} >= {"bi", "crm", "new"}
    finally:
        await outbox.aclose()


@pytest.mark.parametrize("made_over_the_api", [False, True])
async def test_a_dispatcher_without_any_endpoint_warns_that_nothing_is_sent(
    made_over_the_api: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/relay.db"
    if made_over_the_api:
        outbox = await Outbox.open(url, name="another", clock=SystemClock())
        audience = StreamAudience(("*",), ("*",), ("*",), relay=False)
        made = NewApiEndpoint("acme", None, '{"url": "https://hooks.example.com/in"}', audience, None)
        await outbox.api_endpoints.put(made, new_secret(), most=1)
        await outbox.aclose()
    config = Config.model_validate({"outbox": {"url": url}, "admin": {"listen": None}, "endpoints": []})
    source, stop = SimpleNamespace(files=(), load=lambda: config), asyncio.Event()
    with caplog.at_level(logging.INFO):
        service = asyncio.create_task(run_service(config, stop, source, asyncio.Event(), {}, role="dispatch"))
        await until(lambda: any(message.startswith("Ready in ") for message in caplog.messages))
        stop.set()
        await service
    warnings = [message for message in caplog.messages if message.startswith("There are no endpoints: ")]
    (ready,) = [message for message in caplog.messages if message.startswith("Ready in ")]
    assert len(warnings) == (0 if made_over_the_api else 1)
    assert f"sending to {'1 made over the API' if made_over_the_api else 'no endpoint'}; " in ready
