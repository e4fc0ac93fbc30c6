"""The playground in a real browser: what is said into its microphone is a verified webhook, and shows on the page."""

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.live.test_browser import completed
from tests.live.test_service import WORDS_OF
from tests.support.audio.story import streams
from tests.support.dispatch.receiver import receiving
from tests.support.livekit.livekit_server import LiveKitServer
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
