"""The playground in a real browser: what is said into its microphone is a verified webhook, and shows on the page."""

import asyncio
import re
from pathlib import Path

import pytest
from livekit import api
from playwright.async_api import Page, Route, expect

from relay.api.backend import Playground
from relay.capture.livekit.access import Access
from tests.live.test_browser import completed
from tests.live.test_service import WORDS_OF
from tests.support.api import serving
from tests.support.audio.story import streams
from tests.support.dispatch.receiver import receiving
from tests.support.livekit.livekit_server import API_KEY, API_SECRET, LiveKitServer
from tests.support.livekit.participant import speech_wav
from tests.support.page import browsing
from tests.support.service import service

pytestmark = [pytest.mark.live, pytest.mark.speech]


async def test_what_is_said_in_the_playground_arrives_and_shows(server: LiveKitServer, tmp_path: Path) -> None:
    async with receiving() as receiver, service(server, receiver.url, tmp_path) as relay:
        config = tmp_path / "config.yaml"
        text = config.read_text().replace("admin: {", "api: {").replace("api: {", "api: {playground: true, ")
        config.write_text(text)
        await relay.start()
        expect.set_options(timeout=60_000)
        async with browsing(f"{relay.url}/#/playground", microphone=speech_wav("two_cities")) as page:
            await page.get_by_label("Room").fill("test")
            await page.get_by_role("button", name="Join and speak").click()
            await expect(page.locator(".facts")).to_contain_text("In playground-test")
            said = page.locator(".line .what").first
            await expect(said).to_contain_text(re.compile("times|best|worst|age"))
            await page.get_by_role("button", name="Mute").click()
            hooks = page.get_by_label("Webhooks")
            await expect(hooks.locator("tr", has_text="transcript.final").first).to_contain_text("200")
            await receiver.wait_for(lambda: completed(receiver) != {})
            await page.get_by_role("button", name="Leave").click()
            await expect(page.get_by_role("button", name="Join and speak")).to_be_visible()
        assert await relay.stop() == 0, relay.tail()
    (stream,) = streams(receiver)  # every signature is verified
    assert stream.events[0].room.name == "playground-test"
    said_there = " ".join(text for _, text in completed(receiver).values()).lower()
    assert WORDS_OF["bob"] & set(said_there.replace(",", "").replace(".", "").split())


_ASKS = """
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (what) => {
  await new Promise((allow) => { window.allow = allow; });
  return (window.microphone = await open(what));
};
"""
"""The browser asks for the microphone, and the test answers."""


async def joins(page: Page, room: str) -> None:
    await page.get_by_role("link", name="Playground").click()
    await page.get_by_label("Room").fill(room)
    await page.get_by_role("button", name="Join and speak").click()


async def goes_elsewhere(page: Page) -> None:
    await page.get_by_role("link", name="Rooms").click()
    await expect(page.locator(".playground")).to_have_count(0)


async def test_one_who_goes_elsewhere_while_joining_is_not_heard(server: LiveKitServer, tmp_path: Path) -> None:
    playground = Playground(server.url, Access(server.url, API_KEY, API_SECRET).guest_token, lambda _: True)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await answered.wait()
        await route.continue_()

    expect.set_options(timeout=60_000)
    async with (
        asyncio.timeout(120),
        serving(tmp_path, playground=playground) as relay,
        browsing(relay.server.url, microphone=speech_wav(), script=_ASKS) as page,
    ):
        await page.route("**/livekit-client.js", hold)
        await joins(page, "left")
        await asked.wait()
        await goes_elsewhere(page)
        answered.set()

        await joins(page, "left-later")
        await page.wait_for_function("() => window.allow")
        await goes_elsewhere(page)
        await page.evaluate("window.allow()")
        await page.wait_for_function(
            "() => window.microphone?.getTracks().every((track) => track.readyState === 'ended')"
        )

        await page.evaluate("window.allow = null")
        await joins(page, "there")
        await page.wait_for_function("() => window.allow")
        await page.evaluate("window.allow()")
        await expect(page.locator(".facts")).to_contain_text("In playground-there")
        async with server.api() as client:
            present = {
                room.name: [each.identity for each in listed.participants if each.tracks]
                for room in (await client.room.list_rooms(api.ListRoomsRequest())).rooms
                for listed in [await client.room.list_participants(api.ListParticipantsRequest(room=room.name))]
            }
        assert [name for name, speaking in present.items() if speaking] == ["playground-there"]
        assert "playground-left" not in present, "nobody joins who has gone elsewhere"
