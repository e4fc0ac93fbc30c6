"""The playground's token: for one room of a fixed prefix, to publish a microphone, for operators."""

from pathlib import Path

import jwt
import pytest

from relay.api.backend import Playground
from relay.api.routes.page import PREFIX
from relay.capture.livekit.access import Access
from relay.config.api import Admin, Api, Token, listening
from tests.support.api import OF_CRM, OPERATOR, TOKENS, serving
from tests.support.builders import endpoint
from tests.support.page import browsing

SECRET = "s" * 32
URL = "wss://livekit.example.com"
ACCESS = Access(URL, "key", SECRET)
PLAYGROUND = Playground(URL, ACCESS.guest_token, lambda room: room.endswith("-mine"))
PATH = "/v1/playground/join"


async def test_a_guest_may_publish_a_microphone_in_one_room_and_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()], tokens=TOKENS, as_=OPERATOR, playground=PLAYGROUND) as api:
        given = (await api.client.post(PATH, json={"room": "mine"})).json()
        assert (given["room"], given["url"], given["heard"]) == (f"{PREFIX}mine", URL, True)
        claims = jwt.decode(given["token"], SECRET, algorithms=["HS256"])
        assert claims["sub"] == given["identity"]
        assert claims["exp"] - claims["nbf"] <= 120
        assert claims["video"] == {
            "roomJoin": True,
            "room": f"{PREFIX}mine",
            "canPublish": True,
            "canPublishSources": ["microphone"],
            "canSubscribe": False,
            "canPublishData": False,
        }
        others = [(await api.client.post(PATH, json={})).json() for _ in range(2)]
        assert all(each["room"].startswith(PREFIX) and not each["heard"] for each in others)
        assert others[0]["room"] != others[1]["room"]
        for wrong in ("../x", "UPPER", "x" * 33):
            assert (await api.client.post(PATH, json={"room": wrong})).status_code == 422
        bound = await api.client.post(PATH, json={}, headers={"Authorization": f"Bearer {OF_CRM}"})
        assert bound.status_code == 403
        policy = (await api.get("/")).headers["content-security-policy"]
        assert "connect-src 'self' wss://livekit.example.com https://livekit.example.com; " in policy


async def test_without_the_setting_there_is_no_playground(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        assert (await api.client.post(PATH, json={})).status_code == 404
        assert (await api.get("/v1/about")).json()["playground"] is False


@pytest.mark.parametrize(
    ("listen", "tokens", "on"),
    [("127.0.0.1:0", (), True), ("0.0.0.0:0", (), False), ("0.0.0.0:0", TOKENS, True)],
)
def test_beyond_loopback_the_playground_is_off_without_tokens(listen: str, tokens: tuple[Token, ...], on: bool) -> None:
    served = listening(Api(listen=listen, tokens=tokens, playground=True), Admin())
    assert served is not None
    assert served.playground is on
    off = listening(Api(listen=listen, tokens=tokens), Admin())
    assert off is not None
    assert not off.playground


async def test_the_navigation_fits_a_phone_with_all_that_an_operator_sees(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, [endpoint()], tokens=TOKENS, as_=OPERATOR, playground=PLAYGROUND) as api,
        browsing(api.server.url, width=390) as page,
    ):
        await page.get_by_label("Token").fill(OPERATOR)
        await page.get_by_role("button", name="Continue").click()
        await page.get_by_role("link", name="Playground").wait_for()
        too_narrow = "[...document.querySelectorAll('.top > *')].filter((e) => e.scrollWidth > e.clientWidth + 1)"
        assert await page.evaluate(f"{too_narrow}.map((e) => e.className)") == []
        assert await page.evaluate("document.querySelector('.top button').clientHeight") < 36
