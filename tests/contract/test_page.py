"""The live page in a real browser, served by the API on a real log."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from relay.api.routes.page import FOLDER
from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.config.api import Token
from tests.support.api import OF_CRM, OPERATOR, TOKENS, Api, serving
from tests.support.builders import endpoint, stream_id
from tests.support.dispatch.receiver import receiving
from tests.support.livekit.browser import npm_packages
from tests.support.page import LINES, Voice, browsing, joins, overlap, running_browser

WAIT_MS = 30_000
EVIL = "<img src=x onerror=\"window.broken='yes'\"><script>window.broken='yes'</script>"

expect.set_options(timeout=WAIT_MS)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One for all of these tests: to start it takes longer than most of them."""
    async with running_browser() as running:
        yield running


@asynccontextmanager
async def relay(folder: Path, **options: Any) -> AsyncIterator[Api]:
    """The API with an endpoint that takes everything, and one that cannot be reached."""
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(receiving())
        away = endpoint("away", url="http://127.0.0.1:9/", retry={"schedule": ["1ms"]}, breaker=None)
        crm = endpoint("crm", url=receiver.url, include={"text": False})
        api = await stack.enter_async_context(serving(folder, [crm, away], **options))
        await stack.enter_async_context(delivering(api.outbox, api.endpoints, SystemClock(), grace_s=1))
        yield api


async def conversation(api: Api, room: str = "support") -> tuple[Voice, Voice]:
    alice, bob = await joins(api.outbox, room, "alice"), await joins(api.outbox, room, "bob")
    now = SystemClock().now_ms()
    for n, line in enumerate(LINES):
        await (alice, bob)[n % 2].says(line, at=now - 30_000 + 4000 * n)
    await overlap(api.outbox, (alice, bob), now - 9000, now - 8000)
    await alice.add("microphone.muted")
    await bob.add("source.failed")
    return alice, bob


async def until_dead(api: Api) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        while True:
            dead: list[dict[str, Any]] = (await api.get("/v1/deliveries?state=dead&endpoint=away")).json()["deliveries"]
            if any(each["type"] == "utterance.completed" for each in dead):
                return dead
            await asyncio.sleep(0.05)


async def serious(page: Page) -> list[str]:
    """What axe finds wrong on the page that is at least serious."""
    source = (npm_packages() / "axe-core/axe.min.js").read_text()
    await page.evaluate(source)
    found = await page.evaluate("axe.run().then(({violations}) => violations)")
    return [
        f"{each['id']}: {node['html'][:160]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


async def test_speech_shows_as_it_happens_and_settles(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path) as api:
        alice = await joins(api.outbox, "support", "alice")
        async with browsing(api.server.url, browser=browser) as page:
            await expect(page.locator(".connection")).to_contain_text("Live")
            speaking = await alice.begins()
            await expect(page.locator(".list a")).to_contain_text("1 speaking")
            for guess in ("Hello", "Hello wor"):
                await speaking.guesses(guess)
                await expect(page.locator(".line i")).to_have_text(guess)
            await speaking.ends("Hello world.")
            await expect(page.locator(".line .what")).to_have_text("Hello world.")
            await expect(page.locator(".line i")).to_have_count(0)
            await expect(page.locator(".list a")).to_contain_text("open")
            bob = await joins(api.outbox, "support", "bob", "Bob Okafor")
            await bob.says("Good morning.", at=SystemClock().now_ms())
            await expect(page.locator(".labels li")).to_have_text(["Alice", "Bob Okafor"])
            await expect(page.locator(".line .what")).to_have_text(["Hello world.", "Good morning."])


async def test_a_room_shows_who_has_been_silent_for_long_and_loads_its_past(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path) as api:
        await joins(api.outbox, "support", "silent")
        alice = await joins(api.outbox, "support", "alice")
        now = SystemClock().now_ms()
        async with alice.together():
            for n in range(76):  # two pages of events
                await alice.says(f"Sentence {n}.", at=now + 20 * n, lasts_ms=15)
        async with browsing(f"{api.server.url}/#/rooms/support", browser=browser) as page:
            await expect(page.locator(".labels")).to_have_text(re.compile("silent", re.IGNORECASE))
            await expect(page.locator(".line .what").last).to_have_text("Sentence 75.")
            canvas, selected = page.locator("canvas"), page.locator(".selection .quote")
            async with asyncio.timeout(60):
                await canvas.press("ArrowLeft")
                while (await selected.inner_text()).strip() != "Sentence 0.":
                    await canvas.press("ArrowLeft")


async def test_a_room_that_no_path_can_name_is_shown_all_the_same(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path) as api:
        for room in (".", "..", "support", "support/transcript", "line\nfeed"):
            alice = await joins(api.outbox, room, "alice")
            await alice.says(f"Said in {room}.")
        for room in (".", "..", "support/transcript", "line\nfeed"):
            async with browsing(f"{api.server.url}/#/rooms/{quote(room, safe='')}", browser=browser) as page:
                await expect(page.locator(".line .what")).to_have_text(f"Said in {room}.")
                await expect(page.locator(".problem")).to_have_count(0)


async def test_the_timeline_has_no_more_rows_than_people(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path) as api:
        await joins(api.outbox, "support", "alice")
        async with browsing(f"{api.server.url}/#/rooms/support", browser=browser) as page:
            await expect(page.locator(".labels li")).to_have_count(1)
            for name in ("bob", "carol"):
                await joins(api.outbox, "support", name)
                await page.wait_for_function(
                    """() => {
                      const rows = [...document.querySelectorAll(".labels li")];
                      const height = document.querySelector("canvas").clientHeight;
                      const left = height - rows.length * rows[0].offsetHeight;
                      return left >= 0 && left < rows[0].offsetHeight;
                    }"""
                )


_WORK = """
window.work = {draws: 0, drawsOfFrame: 0, ops: 0, mostOps: 0, writes: 0, most: 0};
let frame = -1, draws = 0, seen = new Map();
const of = () => {
  if (frame !== document.timeline.currentTime) [frame, draws, seen] = [document.timeline.currentTime, 0, new Map()];
};
const brush = CanvasRenderingContext2D.prototype;
for (const name of ["clearRect", "fillRect", "fillText", "fill", "stroke"]) {
  const original = brush[name];
  brush[name] = function (...all) {
    if (name === "clearRect") {
      of();
      [work.draws, work.ops] = [work.draws + 1, 0];
      work.drawsOfFrame = Math.max(work.drawsOfFrame, ++draws);
    }
    work.mostOps = Math.max(work.mostOps, ++work.ops);
    return original.apply(this, all);
  };
}
addEventListener("DOMContentLoaded", () => new MutationObserver((records) => {
  of();
  for (const {target} of records) {
    if (!target.parentElement?.closest(".what i")) continue;
    seen.set(target, (seen.get(target) || 0) + 1);
    work.writes += 1;
    work.most = Math.max(work.most, seen.get(target));
  }
}).observe(document.body, {subtree: true, characterData: true}));
"""


async def test_fifty_people_cost_one_paint_a_frame_and_a_bounded_page(browser: Browser, tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        people = [await joins(api.outbox, "support", f"person-{n:02}") for n in range(50)]
        async with browsing(f"{api.server.url}/#/rooms/support", browser=browser, script=_WORK) as page:
            await expect(page.locator(".labels li")).to_have_count(50)
            speaking = [await voice.begins() for voice in people]
            await expect(page.locator(".line")).to_have_count(50)
            for turn in range(5):
                for voice, one in zip(people, speaking, strict=True):
                    async with voice.together():
                        for n in range(8):
                            await one.guesses(f"guess {turn}-{n}")
            await expect(page.locator(".line i", has_text="guess 4-7")).to_have_count(50)
            work = await page.evaluate("work")
            assert work["drawsOfFrame"] == 1, "the timeline must be painted once a frame, however much arrives"
            assert work["writes"] > 0
            # twice if the list of rooms, which the page asks for now and then, arrives in the same frame
            assert work["most"] <= 2, "a text must be written once a frame, however many interims arrive"

            hour_ago = SystemClock().now_ms() - 3_600_000
            for voice in people:
                async with voice.together():
                    for n in range(10):
                        await voice.says("Said long ago.", at=hour_ago + 4000 * n, lasts_ms=1000)
            async with people[0].together():
                await speaking[0].guesses("after all that")
            await expect(page.locator(".line i", has_text="after all that")).to_have_count(1)
            await page.evaluate("work.mostOps = 0")
            drawn = await page.evaluate("work.draws")
            await page.wait_for_function("(drawn) => work.draws > drawn + 2", arg=drawn)
            again = await page.evaluate("work")
            assert again["mostOps"] <= work["mostOps"] + 20, "what is not in view must cost a paint nothing"
            assert await page.locator(".line").count() <= 80
            assert await page.evaluate("document.querySelectorAll('*').length") < 1000


async def test_a_lost_feed_is_resumed_without_a_gap(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path) as api:
        alice = await joins(api.outbox, "support", "alice")
        async with browsing(f"{api.server.url}/#/rooms/support", browser=browser) as page:
            await alice.says("One.")
            await expect(page.locator(".line .what")).to_have_text(["One."])
            for connection in list(api.server._connections._open):
                connection.transport.abort()
            await alice.says("Two.")
            await expect(page.locator(".line .what")).to_have_text(["One.", "Two."])


async def test_an_utterance_shows_where_its_time_went(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path) as api:
        alice, _ = await conversation(api)
        await until_dead(api)
        async with browsing(f"{api.server.url}/#/utterances/{alice.id}/{alice.utterances[0]}", browser=browser) as page:
            await expect(page.locator("blockquote")).to_have_text(LINES[0])
            row = page.locator(".summary tr", has_text="transcript.final")
            await expect(row).to_contain_text(re.compile(r"429 ms.*1 ms"))
            await expect(page.locator(".track.sub", has_text="crm").last).to_contain_text("200")
            await page.get_by_role("button", name="From the end of speech").click()
            await expect(page.locator(".track", has_text="voice").locator(".part")).to_have_count(1)


async def test_a_dead_letter_is_retried_and_discarded(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path) as api:
        await conversation(api)
        await until_dead(api)
        async with browsing(f"{api.server.url}/#/deliveries", browser=browser) as page:
            await page.get_by_role("link", name="away").click()
            await page.get_by_role("link", name="Dead letters").click()
            row = page.locator("tbody tr", has_text="utterance.completed").first
            await row.get_by_role("button", name="Retry").click()
            await expect(page.get_by_text("It is tried again now.")).to_be_visible()
            await row.get_by_role("button", name="Discard").click()
            await expect(page.get_by_text("Discarded.")).to_be_visible()
            await page.locator("tbody tr a").first.click()
            await expect(page.locator("pre.code")).to_contain_text('"api_version"')
            await expect(page.locator("section.card")).to_contain_text("connect")


async def test_a_range_is_counted_and_then_sent_again(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path) as api:
        await conversation(api)
        await until_dead(api)
        async with browsing(f"{api.server.url}/#/deliveries/crm/attempts", browser=browser) as page:
            await expect(page.locator("tbody tr").first).to_contain_text("200")
            await page.get_by_role("button", name="Ping").click()
            await expect(page.get_by_text("It answered 200 after")).to_be_visible()
            await page.get_by_role("button", name="Resend…").click()
            await page.get_by_label("Types").fill("transcript.final")
            await page.get_by_role("button", name="Count").click()
            await expect(page.get_by_role("dialog")).to_contain_text(f"{len(LINES)} events of 2 streams")
            await page.get_by_role("button", name="Resend", exact=True).click()
            await expect(page.get_by_role("dialog")).to_contain_text("are sent again")


async def test_what_comes_from_rooms_stays_text(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path) as api:
        voice = await joins(api.outbox, EVIL, EVIL, EVIL)
        await voice.says(EVIL)
        speaking = await voice.begins()
        await speaking.guesses(EVIL)
        dead = (await until_dead(api))[0]["event_id"]
        async with browsing(api.server.url, browser=browser) as page:
            await expect(page.locator(".line .what").first).to_have_text(EVIL)
            await expect(page.locator("h1")).to_have_text(EVIL)
            await expect(page.locator(".line .who").first).to_have_css("unicode-bidi", "isolate")
            for place in (
                f"utterances/{voice.id}/{voice.utterances[0]}",
                "deliveries/away/dead",
                f"events/{dead}/away",
            ):
                await page.goto(f"{api.server.url}/#/{place}")
                await expect(page.get_by_text(EVIL).first).to_be_attached()
                assert await page.evaluate("window.broken") is None
                assert await page.locator("#app img[src=x], #app script").count() == 0


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
async def test_axe_finds_nothing_serious(
    browser: Browser, tmp_path: Path, scheme: Literal["light", "dark"], width: int
) -> None:
    async with relay(tmp_path) as api:
        alice, _ = await conversation(api)
        dead = await until_dead(api)
        places = {
            "rooms/support": ".line",
            "deliveries": "tbody tr",
            "deliveries/away/dead": "tbody tr",
            "deliveries/crm/attempts": "tbody tr",
            f"utterances/{alice.id}/{alice.utterances[0]}": ".track",
            f"events/{dead[0]['event_id']}/away": "pre.code",
        }
        async with browsing(api.server.url, browser=browser, scheme=scheme, width=width) as page:
            for place, there in places.items():
                await page.goto(f"{api.server.url}/#/{place}")
                await page.locator(there).first.wait_for()
                assert await serious(page) == [], place
                too_wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
                assert not too_wide, f"{place} scrolls sideways at {width} px"


async def test_the_page_works_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path) as api:
        await conversation(api, "other")
        await conversation(api)
        async with browsing(api.server.url, browser=browser) as page:
            await page.locator(".line").first.wait_for()
            visited = await tab_to(page, "a[href='#/rooms/support']")
            assert "skip" in visited[0], "the first stop leads past the navigation"
            await page.keyboard.press("Enter")
            await expect(page.locator("h1")).to_be_focused()
            await expect(page.locator("h1")).to_have_text("support")
            await tab_to(page, "canvas")
            for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowDown", "+", "-", "-", "PageUp", "End"):
                await page.keyboard.press(key)
            await expect(page.locator(".selection strong")).to_be_visible()
            await page.keyboard.press("Enter")
            await expect(page.locator("h2", has_text="Where the time went")).to_be_visible()
            await tab_to(page, "button[aria-pressed=false]")
            await page.keyboard.press("Space")
            await expect(page.get_by_role("button", name="From the end of speech")).to_have_attribute(
                "aria-pressed", "true"
            )
            await tab_to(page, ".top nav a[href='#/deliveries']")
            await page.keyboard.press("Enter")
            await tab_to(page, "a[href='#/deliveries/crm']")


async def tab_to(page: Page, selector: str) -> list[str]:
    """Press Tab until it has the focus; returns what had it before."""
    visited = []
    for _ in range(150):
        await page.keyboard.press("Tab")
        visited.append(await page.evaluate("document.activeElement.className"))
        if await page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return visited
    raise AssertionError(f"{selector} is not reached by Tab")


async def test_a_token_is_asked_for_and_bounds_what_is_shown(browser: Browser, tmp_path: Path) -> None:
    async with relay(tmp_path, tokens=TOKENS, as_=OPERATOR) as api:
        await conversation(api)
        await until_dead(api)
        async with browsing(api.server.url, browser=browser) as page:
            token, go = page.get_by_label("Token"), page.get_by_role("button", name="Continue")
            assert await serious(page) == []
            await token.fill("not-a-token")
            await go.click()
            await expect(page.get_by_role("alert")).to_contain_text("does not know this token")
            await token.fill(OF_CRM)
            await go.click()
            await expect(page.locator(".top")).to_contain_text("read-only")
            await expect(page.locator(".connection")).to_contain_text("Live")
            await page.get_by_role("link", name="Deliveries").click()
            await expect(page.locator("tbody tr")).to_have_count(1)
            await page.get_by_role("link", name="crm").click()
            await expect(page.get_by_role("button", name="Resend…")).to_have_count(0)
            assert await page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]

            await page.reload()
            await token.fill(OPERATOR)
            await page.get_by_label("Keep it until this tab is closed").check()
            await go.click()
            await expect(page.locator("tbody tr").first).to_be_visible()
            await page.reload()
            await expect(page.locator("tbody tr").first).to_be_visible()
            await page.get_by_role("button", name="Sign out").click()
            await expect(token).to_be_visible()
            assert await page.evaluate("sessionStorage.length") == 0


async def test_a_tenant_looks_through_one_of_its_endpoints_at_a_time(browser: Browser, tmp_path: Path) -> None:
    token = "of-acme-" + "a" * 24
    tenant = Token.model_validate({"name": "acme", "token": token, "tenant": "acme", "rooms": ["acme-*"]})
    async with serving(tmp_path, [endpoint()], tokens=[tenant], as_=token) as api:
        for name in ("first", "second"):
            order = {"url": "https://203.0.113.7/", "events": ["*"], "rooms": [f"acme-{name}"]}
            assert (await api.client.put(f"/v1/endpoints/{name}", json=order)).status_code == 201
        for room in ("acme-first", "acme-second", "of-another"):
            await (await joins(api.outbox, room, "alice")).says(f"Said in {room}.")
        async with browsing(api.server.url, browser=browser) as page:
            await page.get_by_label("Token").fill(token)
            await page.get_by_role("button", name="Continue").click()
            for name in ("first", "second"):
                await page.get_by_label("Look through this endpoint").select_option(name)
                await expect(page.locator(".list .name")).to_have_text([f"acme-{name}"])
                await expect(page.locator(".line .what")).to_have_text([f"Said in acme-{name}."])
            await page.get_by_role("link", name="Deliveries").click()
            await expect(page.locator("tbody tr")).to_have_count(2)


async def test_the_page_loads_only_from_the_relay_and_forbids_more(browser: Browser, tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()], tokens=TOKENS) as api:
        answer = await api.get("/")
        assert answer.status_code == 200, "without a token: it contains nothing secret"
        policies = answer.headers.get_list("content-security-policy")
        assert len(policies) == 1
        assert policies[0].startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policies[0]
        assert "set-cookie" not in answer.headers
        for path in FOLDER.rglob("*.*"):
            name = path.relative_to(FOLDER).as_posix()
            served = await api.get(f"/page/{name}")
            assert (served.status_code, served.content) == (200, path.read_bytes()), name
            if path.suffix in (".html", ".css") or (path.suffix == ".js" and path.parent == FOLDER):
                text = path.read_text()
                assert not re.findall(r"https?://(?!www\.w3\.org/)", text), f"{name} loads something from elsewhere"
                assert not re.search(r"innerHTML|dangerouslySetInnerHTML|<style|\son\w+=\"|style=\"", text), name
        for unknown in ("/page/", "/page/none.js", "/page/../app.py", "/page/..%2fapp.py"):
            assert (await api.get(unknown)).status_code == 404
        async with browsing(api.server.url, browser=browser) as page:
            await page.get_by_label("Token").wait_for()
            loaded = await page.evaluate("performance.getEntriesByType('resource').map(({name}) => name)")
            assert loaded
            assert all(each.startswith(api.server.url) for each in loaded)


async def test_vendored_files_are_those_of_the_npm_packages() -> None:
    packages, vendored = npm_packages(), FOLDER / "vendor"
    notice = (vendored / "NOTICE.txt").read_text()
    named = re.findall(r"^(\S+\.js)  (\S+)@(\S+)  (\S+)  ", notice, re.MULTILINE)
    assert {name for name, *_ in named} == {path.name for path in vendored.glob("*.js")}
    for name, package, version, path in named:
        assert f'"version": "{version}"' in (packages / package / "package.json").read_text()
        original, ours = (packages / package / path).read_bytes(), (vendored / name).read_bytes()
        assert hashlib.sha256(ours).digest() == hashlib.sha256(original).digest(), name


async def test_an_empty_log_says_what_to_do_next(browser: Browser, tmp_path: Path) -> None:
    async with serving(tmp_path) as api, browsing(api.server.url, browser=browser) as page:
        await expect(page.get_by_text("Start a call in LiveKit")).to_be_visible()
        await page.get_by_role("link", name="Deliveries").click()
        await expect(page.get_by_text("Add one to config.yaml")).to_be_visible()
        await page.goto(f"{api.server.url}/#/utterances/{stream_id(1)}/utt_none")
        await expect(page.get_by_text("Not in the log")).to_be_visible()
