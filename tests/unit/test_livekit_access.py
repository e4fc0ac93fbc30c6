"""What the operator is told where the LiveKit server cannot be used."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from livekit.api.twirp_client import ServerError
from pydantic import SecretStr

from relay.capture.livekit.access import Access, Unreachable, explain, verify_access
from relay.config.models import LiveKit
from relay.errors import ConfigError, LiveKitError
from tests.support.dispatch.certificates import Authority, server_context
from tests.support.dispatch.receiver import receiving

SECRET = "a-secret-of-at-least-thirty-two-characters"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"livekit\.url \(or LIVEKIT_URL\), livekit\.api_secret") as raised:
        Access.of(LiveKit(api_key="key"))
    assert "api_key" not in str(raised.value)


def test_the_secret_is_not_shown() -> None:
    access = Access.of(LiveKit(url="ws://127.0.0.1:7880", api_key="key", api_secret=SecretStr(SECRET)))
    assert access.api_secret == SECRET
    assert SECRET not in repr(access)


@pytest.mark.parametrize(
    ("error", "says", "may_pass"),
    [
        (ServerError("unauthenticated", "no", status=401), "LIVEKIT_API_SECRET", False),
        (ServerError("permission_denied", "no", status=403), "does not let this API key list rooms", False),
        (ServerError("unknown", "", status=404), "is no LiveKit server", False),
        (ServerError("internal", "", status=500), "answers 500", True),
        (aiohttp.ClientConnectionError(), "cannot be reached", True),
        (TimeoutError(), "did not answer within 5 s", True),
        (OSError(), "cannot be reached", True),
        (aiohttp.InvalidURL("x"), "is not a LiveKit server's address", False),
    ],
)
def test_every_failure_has_its_cure(error: Exception, says: str, may_pass: bool) -> None:
    explained = explain(error, "ws://livekit.test")
    assert says in str(explained)
    assert "ws://livekit.test" in str(explained)
    assert isinstance(explained, Unreachable) is may_pass


@pytest.fixture
async def website() -> AsyncIterator[str]:
    """Something that answers 200 to everything and is no LiveKit server."""

    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="<html>hello</html>")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_website_is_not_taken_for_a_livekit_server(website: str) -> None:
    with pytest.raises(LiveKitError, match=r"Check LIVEKIT_URL") as raised:
        await verify_access(Access(website, "key", SECRET))
    assert not isinstance(raised.value, Unreachable)


async def test_tls_to_a_server_without_it_names_the_other_scheme(website: str) -> None:
    with pytest.raises(Unreachable, match=r"does not speak TLS: is LIVEKIT_URL \(livekit\.url\) rather ws://"):
        await verify_access(Access(website.replace("ws:", "wss:"), "key", SECRET))


async def test_a_certificate_that_is_not_trusted_is_named_as_the_cause(tmp_path: Path) -> None:
    async with receiving(tls=server_context(Authority(tmp_path).sign("server"))) as receiver:
        address = receiver.url.replace("https:", "wss:")
        with pytest.raises(
            Unreachable, match=r"its certificate is not accepted \(unable to get local issuer certificate\)"
        ):
            await verify_access(Access(address, "key", SECRET))


async def test_an_address_that_is_none_is_said_to_be_none() -> None:
    with pytest.raises(LiveKitError, match=r"Check LIVEKIT_URL"):
        await verify_access(Access("livekit.example.com", "key", SECRET))
