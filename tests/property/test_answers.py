"""An answer is that of the request which it answers, whatever else a receiver writes, and whenever."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import httpx
import pytest

from relay.dispatch.http.outcome import Delivered, Failed
from tests.support.dispatch.hostile import HEADERS, posting, reset, serving

REQUESTS = 300
AT_ONCE = 6
STRAY = (b"null", b"<html>", b"\r\n", b"0\r\n\r\n", b"HTTP/", b"\x00" * 8, b"HTTP/1.1 103 Early Hints\r\n\r\n")
"""What may follow an answer. A whole final answer is not among it: nothing tells it from that of the next request."""

WHOLE = (
    b"content-length: 2\r\n\r\nok",
    b"content-length: 0\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nx: y\r\n\r\n",
)
BROKEN = (
    b"content-length: 2\r\n\r\nlonger than it says",
    b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    b"transfer-encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
    b"content-length: 2\r\ncontent-length: 3\r\n\r\nok",
    b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"connection: close\r\ncontent-length: 0\r\n\r\n",
)
"""Headers and body of an answer that are not as they should be."""
CUT = (
    b"content-length: 20\r\n\r\nshort",
    b"\r\nas long as it lasts",
)
"""These end with their connection."""


def status_of(number: int) -> int:
    """Each request has one of its own, so that an answer shows whose it is."""
    return (200 if number % 3 else 500) + number % 97 if number % 97 not in (4, 5) else 200


class Receiver:
    """Answers each request with its own status, in every form that there is, and writes more than it should."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.reused = 0
        """How many answers were not the first of their connection."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = 0
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            number = int(head.partition(b"webhook-id: evt_")[2].split(b"\r\n")[0])
            if self._dice.random() < 0.04:
                await self._fail(writer, number)
                return
            early = self._dice.random() < 0.2  # before it has read the body
            if not early:
                await reader.readexactly(size)
            self.reused += answers > 0
            answers += 1
            goes_on = await self._answer(writer, number)
            if early:
                await reader.readexactly(size)
            if not goes_on:
                return

    async def _fail(self, writer: asyncio.StreamWriter, number: int) -> None:
        """End without a whole answer."""
        kind = self._dice.randrange(3)
        if kind == 0:
            reset(writer)
        elif kind == 1:
            await self._write(writer, b"HTTP/1.1 %d Fi" % status_of(number))

    async def _answer(self, writer: asyncio.StreamWriter, number: int) -> bool:
        """Whether the connection takes another request."""
        dice = self._dice
        line = b"HTTP/1.1 %d It\r\n" % status_of(number)
        before = dice.choice((b"", b"", b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"))
        kind = dice.choices((WHOLE, BROKEN, CUT), (90, 8, 2))[0]
        body = dice.choice(kind)
        await self._write(writer, before + line + body)
        if dice.random() < 0.05:
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(dice.random() / 500)
            await self._write(writer, dice.choice(STRAY))
        return kind is not CUT and dice.random() < 0.97

    async def _write(self, writer: asyncio.StreamWriter, content: bytes) -> None:
        for part in self._parts(content):
            writer.write(part)
            await writer.drain()
            if self._dice.random() < 0.3:
                await asyncio.sleep(0)

    def _parts(self, content: bytes) -> Iterator[bytes]:
        while content:
            size = self._dice.choice((1, 5, len(content), len(content)))
            yield content[:size]
            content = content[size:]


@pytest.mark.parametrize("seed", range(4))
async def test_no_answer_is_taken_for_that_of_another_request(seed: int) -> None:
    receiver = Receiver(random.Random(seed))
    wrong: list[tuple[int, object]] = []
    seen = 0

    async def send(post: Callable[..., Awaitable[object]], numbers: Iterator[int]) -> None:
        nonlocal seen
        for number in numbers:
            headers = [header for header in HEADERS if header[0] != b"webhook-id"]
            outcome = await post(headers=[*headers, (b"webhook-id", b"evt_%d" % number)], body=b"x" * (number % 50))
            assert isinstance(outcome, Delivered | Failed)
            if outcome.status is not None:
                seen += 1
                if outcome.status != status_of(number) or isinstance(outcome, Delivered) != (outcome.status < 300):
                    wrong.append((number, outcome))

    async with serving(receiver, read_request=False) as url:
        numbers = iter(range(REQUESTS))
        # one transport for some requests only: a receiver that is once out of step gets no connection twice
        while some := [n for _, n in zip(range(30), numbers, strict=False)]:
            async with posting() as transport, asyncio.TaskGroup() as group:
                post = partial(transport.post, httpx.URL(url), deadline=10)
                queue = iter(some)
                for _ in range(AT_ONCE):
                    group.create_task(send(post, queue))
    assert wrong == []
    assert seen > REQUESTS // 2
    assert receiver.reused > 0, "no connection was used twice: nothing could be taken for another answer"
