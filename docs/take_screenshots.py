"""Takes the screenshots in docs/screenshots from the real page in Chromium: ``python -m docs.take_screenshots``.

Unlike the pictures of timelines they are not checked: fonts differ between machines.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from playwright.async_api import Page

from relay.app.delivery import delivering
from relay.clock import SystemClock
from tests.support.api import Api, serving
from tests.support.builders import endpoint
from tests.support.dispatch.receiver import Answer, Received, receiving
from tests.support.page import LINES, Voice, browsing, joins, overlap

FOLDER = Path(__file__).parent / "screenshots"
CLOCK = SystemClock()


async def main() -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        receiver = await stack.enter_async_context(receiving())
        receiver.answer = answer
        endpoints = [
            endpoint("crm", url=f"{receiver.url}/crm"),
            endpoint("analytics", url=f"{receiver.url}/slow", include={"text": False}),
            endpoint("legacy", url=f"{receiver.url}/legacy", retry={"schedule": ["200ms"]}, breaker=None),
        ]
        api = await stack.enter_async_context(serving(Path(folder), endpoints))
        await stack.enter_async_context(delivering(api.outbox, api.endpoints, CLOCK, grace_s=1))
        alice, bob = await call(api)
        room = f"{api.server.url}/#/rooms/support-42"
        light = await stack.enter_async_context(browsing(room, width=1120))
        dark = await stack.enter_async_context(browsing(room, width=1120, scheme="dark"))
        phone = await stack.enter_async_context(browsing(room, width=390))
        speaking = await bob.begins()
        for words in ("And when", "And when will it", "And when will it arrive at"):
            await speaking.guesses(words)
            await asyncio.sleep(0.5)
        asking = await alice.begins()
        await light.locator(".line i").first.wait_for()
        for page, name, height in (
            (light, "rooms", 640),
            (dark, "rooms-dark", 640),
            (phone, "phone", 760),
        ):
            await picture(page, name, height)
        await speaking.ends("And when will it arrive at my place?")
        await asking.ends("On Thursday.")
        await asyncio.sleep(2)
        await show(light, f"{api.server.url}/#/utterances/{bob.id}/{speaking.id}", ".track")
        await picture(light, "utterance", 800)
        await show(light, f"{api.server.url}/#/deliveries", "tbody tr")
        await picture(light, "deliveries", 290)


async def call(api: Api) -> tuple[Voice, Voice]:
    """A call of the last minute and a half."""
    now = CLOCK.now_ms()
    for room, ended in (("standup", False), ("interview-3", True), ("sales-17", True)):
        dan = await joins(api.outbox, room, "dan", at=now - 400_000)
        await dan.says("Hello.", at=now - 390_000)
        if ended:
            await dan.add("stream.ended", now - 380_000)
    alice = await joins(api.outbox, "support-42", "alice", at=now - 95_000)
    bob = await joins(api.outbox, "support-42", "bob", "Bob Okafor", at=now - 94_000)
    carol = await joins(api.outbox, "support-42", "carol", at=now - 90_000)
    for n, line in enumerate(LINES):
        await (alice, bob)[n % 2].says(line, at=now - 66_000 + n * 8500, lasts_ms=2000 + len(line) * 40)
    await carol.says("Sorry, I was muted.", at=now - 21_800, lasts_ms=2500)
    await overlap(api.outbox, (bob, carol), now - 21_800, now - 20_300)
    await carol.add("microphone.muted", now - 80_000)
    await carol.add("microphone.unmuted", now - 26_000)
    return alice, bob


def answer(received: Received) -> Answer:
    if received.path == "/legacy":
        return Answer(503)
    return Answer(after=0.3 if received.path == "/slow" else 0.02)


async def show(page: Page, url: str, there: str) -> None:
    await page.goto(url)
    await page.locator(there).first.wait_for()
    await asyncio.sleep(1)


async def picture(page: Page, name: str, height: int) -> None:
    width = await page.evaluate("innerWidth")
    await page.set_viewport_size({"width": width, "height": height})
    await asyncio.sleep(0.3)
    await page.screenshot(path=FOLDER / f"{name}.png")


if __name__ == "__main__":
    asyncio.run(main())
