"""What this machine has run out of is not the endpoint's fault."""

import errno
import os
import resource
import socket
from typing import Any

import httpx
import pytest

from relay.dispatch.http.aiohttp_transport import AiohttpTransport
from relay.dispatch.http.outcome import Failed, Fault
from relay.dispatch.http.resolver import Resolver
from relay.dispatch.http.transport import HttpTransport
from tests.support.dispatch.hostile import HEADERS, posting
from tests.support.dispatch.receiver import receiving


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


async def test_when_this_machine_is_out_of_descriptors_the_endpoint_is_not_charged() -> None:
    async with receiving() as receiver, posting() as transport:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare.fileno(), hard))
        try:
            outcome = await transport.post(httpx.URL(receiver.url), HEADERS, b"{}", 5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            spare.close()
    assert isinstance(outcome, Fault)
