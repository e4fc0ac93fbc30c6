"""The processes of a fleet, as the HTTP API, ``status --api`` and the live page show them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from relay.clock import SystemClock
from tests.support.api import OF_CRM, OPERATOR, TOKENS, Api, serving
from tests.support.builders import process
from tests.support.cli import speech_relay
from tests.support.page import browsing

NOW = SystemClock().now_ms


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """An API on the log of a worker with the coverage, a newer one that died, and a dispatcher of another version."""
    async with serving(tmp_path, tokens=TOKENS) as api:
        for one in (
            process("ears", started_at=NOW() - 9_000_000),
            process("gone", seen_at=NOW() - 60_000),
            process("mouth", "dispatch", lanes=12, version="2", waits_for="the log is slow"),
            process("former", "run", stopped_at=NOW()),
        ):
            await api.outbox.note_process(one)
        assert await api.outbox.hold_duty("coverage", "ears", for_ms=600_000)
        yield api


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_the_status_has_every_process_and_its_duties(api: Api) -> None:
    shown: dict[str, Any] = (await api.get("/v1/status", headers=bearer(OPERATOR))).json()
    states = {each["id"]: each["state"] for each in shown["processes"]}
    assert states == {"ears": "ready", "gone": "lost", "mouth": "not ready"}
    assert (shown["duties"], shown["streams"]["recorded"]) == ({"coverage": "ears"}, 0)
    assert (await api.get("/v1/status", headers=bearer(OF_CRM))).status_code == 403


async def test_a_remote_fleet_is_seen_as_one_in_a_log_is(api: Api, tmp_path: Path) -> None:
    command = ("--api", api.server.url, "status", "--json")
    done = await asyncio.to_thread(speech_relay, *command, cwd=tmp_path, SPEECH_RELAY_API_TOKEN=OPERATOR)
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["relay"], shown["rooms_heard"]) == (1, "not ready", 3)
    assert {each["id"]: (each["state"], each["duties"]) for each in shown["processes"]} == {
        "ears": ("ready", ["coverage"]),
        "gone": ("lost", []),
        "mouth": ("not ready", []),
    }


async def test_the_page_shows_a_fleet_and_no_panel_for_one_process(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        await api.outbox.note_process(process("ears", seen_at=NOW() + 600_000))
        await api.stream(1)
        async with browsing(api.server.url) as page:
            panel = page.locator(".fleet")
            await expect(page.locator(".list a")).to_have_count(1)
            await expect(panel).to_have_count(0)
            await api.outbox.note_process(process("mouth", "dispatch", lanes=12, version="2", seen_at=NOW() + 600_000))
            await expect(panel.locator("li")).to_have_count(2, timeout=30_000)
            await expect(panel).to_contain_text("versions 1, 2")
            await expect(panel.locator("li").filter(has_text="mouth.example")).to_contain_text("12 lanes")
