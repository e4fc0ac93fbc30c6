"""What this machine has run out of is not the endpoint's fault."""

import errno
import os
from typing import Any

import httpx
import pytest

from relay.dispatch.aiohttp_transport import AiohttpTransport
from relay.dispatch.outcome import Failed, Fault
from relay.dispatch.resolver import Resolver
from relay.dispatch.transport import HttpTransport
from tests.support.hostile import HEADERS


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_name_that_cannot_be_asked_for_is_our_own_fault(number: int) -> None:
    def lookup(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    transport = HttpTransport(AiohttpTransport(resolver=Resolver(lookup)))
    outcome = await transport.post(httpx.URL("http://receiver.test/"), HEADERS, b"{}", 5)
    await transport.aclose()
    assert isinstance(outcome, Fault)
    assert outcome.detail == os.strerror(number)


async def test_a_name_that_is_not_known_is_the_endpoints() -> None:
    def lookup(*_: Any) -> Any:
        raise OSError(-2, "Name or service not known")

    transport = HttpTransport(AiohttpTransport(resolver=Resolver(lookup)))
    outcome = await transport.post(httpx.URL("http://receiver.test/"), HEADERS, b"{}", 5)
    await transport.aclose()
    assert isinstance(outcome, Failed)
    assert outcome.stage == "dns"
