"""One HTTP/1.1 connection with a limit on every byte that the receiver sends."""

import asyncio
import re
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpResponseParser
from aiohttp.streams import StreamReader

from relay.dispatch.http import tls_watch
from relay.dispatch.http.errors import AttemptFailed, ConnectionStale, alert_in_words
from relay.dispatch.http.outcome import Answer

HEAD_LIMIT = 65_536
"""Maximum bytes of an answer up to the end of its head, including interim (1xx) answers."""

BODY_LIMIT = 16_384
"""Maximum bytes read after the head, framing included, before the connection is closed. The content is not kept."""

_HEADERS_LIMIT = 1024
"""Maximum header fields that are parsed. The status of a head with more still counts; its connection is closed."""

_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/[0-9]\.[0-9] ([1-9][0-9]{2})(?: [^\n]*)?\r?\n")
_IDLE_TIMEOUT = re.compile(rb"HTTP/1\.[01] 408 ")
"""Some servers write it before they close an idle connection."""


class BoundedConnection(ResponseHandler):
    """A connection of aiohttp's pool that reads its answers itself.

    aiohttp has no hook that sees bytes before they are parsed, and no limit on interim answers, chunk extensions or
    trailers. Here every byte is counted on arrival, so the limits hold for anything a receiver sends. The head is
    collected to its end and parsed once; aiohttp's parser then only finds the end of the body.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_age: float, strayed: Callable[[], None]) -> None:
        """``strayed`` is called when the receiver has written past the end of an answer."""
        super().__init__(loop)
        self._strayed = strayed
        self.pooled: Connection | None = None
        """What the pool knows of it."""
        self.requests = 0
        self._expires = loop.time() + max_age
        self._deadline = 0.0
        """When the current exchange has taken too long, on the event loop's clock."""
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._looks_at = 0.0
        self._awaits: Literal["nothing", "head", "rest"] = "nothing"
        self._clean = False
        """The last answer was read to its end, and nothing came after it."""
        self._answer: asyncio.Future[Answer] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._collected = bytearray()
        self._received = 0
        self._carried = 0
        """Bytes from the receiver, after TLS decryption, over the life of the connection."""
        self._had_interim = False
        self._body_left = 0
        self._framing: HttpResponseParser | None = None
        """Of this answer, and of the next one too if this one ends as it should."""
        self._content: StreamReader | None = None
        self._last = False
        """The answer declares itself the last one on this connection."""
        self._repeated: tuple[bytes, Answer] | None = None
        """All that came for one request, and the whole answer that it was: the same bytes are the same answer."""

    @property
    def reusable(self) -> bool:
        """Whether it can take another request: the last answer is over, and it is open and not too old."""
        return self._clean and self._loop.time() < self._expires and self.is_connected()

    def leave_pool(self) -> None:
        """Close it: it takes no more requests."""
        if self.pooled is not None:
            self.pooled.close()
            self.pooled = None

    def close(self) -> None:
        """Close without waiting for the receiver.

        An orderly close first sends unsent data, and with TLS waits for the other side's closing message: a receiver
        that reads nothing, or sends without end, could keep the connection open.
        """
        transport = self.transport
        if self._clean and transport is not None and transport.get_extra_info("ssl_object") is None:
            super().close()
        else:
            self.abort()

    # the interface that the parser uses

    def pause_reading(self) -> None:
        """Nothing to do: the limits are lower than what its buffer holds."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing to do: it never pauses."""

    # one request

    async def exchange(self, head: bytes, body: bytes, deadline: float) -> Answer:
        """Send a request and wait for the head of its answer, until ``deadline`` on the event loop's clock.

        Raises ``AttemptFailed``.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            self.leave_pool()
            raise ConnectionStale("the connection was gone before the request was sent")
        if time.monotonic() >= deadline:
            # The process was stopped, or got no processor: another may send this event by now. The event loop does not
            # know yet, its time is that of its last look.
            self.leave_pool()
            raise AttemptFailed("timeout", "")
        self._expect_within(deadline)
        self.requests += 1
        self._awaits, self._clean, self._last = "head", False, False
        self._received, self._had_interim = 0, False
        self._answer = self._loop.create_future()
        if len(body) < HEAD_LIMIT:  # one packet, or a few, for one system call
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        try:
            return await self._answer
        except BaseException:
            self.leave_pool()
            raise

    @property
    def ended(self) -> bool:
        """Whether the answer is over: read to its end, or given up."""
        return self._awaits == "nothing"

    async def end(self) -> None:
        """Wait until the answer is over. Never raises: what follows the head changes nothing."""
        if self._awaits == "rest":
            self._ended = self._loop.create_future()
            await self._ended

    def content(self, most: int) -> bytes:
        """At most so many bytes of the beginning of the answer's content, as far as it has come. Until the next
        exchange; at most ``BODY_LIMIT`` bytes are there."""
        if self._content is None or self._content.exception() is not None:
            return b""
        self._repeated = None  # its content is read once
        return self._content.read_nowait(most)

    # One timer for many exchanges: a timer for each would be set and cancelled as often, and hardly ever end one.

    def _expect_within(self, deadline: float) -> None:
        """Let the exchange fail at this time, if it is not over by then."""
        self._deadline = deadline
        if self._deadline_timer is None or deadline < self._looks_at:
            self._look_at(deadline)

    def _look_at(self, when: float) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._looks_at, self._deadline_timer = when, self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._deadline_timer = None
        if self._awaits == "head" and self._loop.time() >= self._deadline:
            self._fail(AttemptFailed("timeout", ""))
        elif self._awaits == "head":
            self._look_at(self._deadline)

    # callbacks of the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if transport.get_extra_info("ssl_object") is not None:
            self._watch_tls(tls_watch.TlsWatch(transport.get_extra_info("socket")))

    def _watch_tls(self, watch: tls_watch.TlsWatch) -> None:
        """Abort a connection that TLS itself floods."""
        if not self.is_connected() or (floods := watch.finds_flood(self._carried)) is None:
            return
        if floods:
            self._fail(AttemptFailed("tls", "the connection is flooded with TLS records that carry no answer"))
        else:
            self._loop.call_later(tls_watch.TLS_WATCH_S, self._watch_tls, watch)

    def data_received(self, data: bytes) -> None:
        self._carried += len(data)
        if self._awaits == "head":
            self._received += len(data)
            if self._repeated is not None and data == self._repeated[0] and len(data) == self._received:
                # usual under load, when parsing would cost more than all the rest: only the date in it changes
                self._finish(clean=True)
                self._take_answer(self._repeated[1])
            else:
                self._read_head(data)
        elif self._awaits == "rest":
            self._read_rest(data)
        else:  # unrequested bytes: the next answer could not be distinguished from them
            if self._clean and not _IDLE_TIMEOUT.match(data):
                self._strayed()
            self._clean = False
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        if self._awaits == "head":
            self._fail(self._lost(exc))
        elif self._awaits == "rest":
            self._finish(clean=False)
        self._clean = False
        super().connection_lost(exc)

    def _lost(self, exc: BaseException | None) -> AttemptFailed:
        if isinstance(exc, ssl.SSLError):
            # TLS 1.3 refuses a client certificate after the handshake, as an answer to the request
            return AttemptFailed("tls", alert_in_words(exc) or str(exc.reason or "the TLS connection broke off"))
        if not self._received:
            if self.writing_paused:
                return AttemptFailed("write", "the connection broke off while sending")
            return ConnectionStale("the connection was closed before an answer came")
        return AttemptFailed("headers", "the connection was closed before the answer's head was complete")

    def _read_head(self, data: bytes) -> None:
        text: bytes | bytearray = data
        start = 0
        if self._collected:
            start = max(0, len(self._collected) - 2)  # the end may span two reads
            self._collected += data
            text = self._collected
        while text:
            if text[0] in b"\r\n":  # RFC 9112 asks to tolerate empty lines before a status line
                text, start = text.lstrip(b"\r\n"), 0
            if text and not _may_become_status_line(text):
                self._fail(self._not_http())
                return
            end = _HEAD_END.search(text, start)
            size = self._received - (len(text) - end.end() if end else 0)
            if size > HEAD_LIMIT:
                least = "" if end else "at least "
                why = f"the answer's head is too large: {least}{size} bytes, and {HEAD_LIMIT} are read"
                self._fail(AttemptFailed("headers", why))
                return
            if end is None:
                self._collected = text if isinstance(text, bytearray) else bytearray(text)
                return
            head, text, start = bytes(text[: end.end()]), bytes(text[end.end() :]), 0
            self._collected = bytearray()
            line = _STATUS_LINE.match(head)
            if line is None:
                self._fail(self._not_http())
                return
            status = int(line[1])
            if status >= 200 or status == 101:
                self._take_head(status, head, text)
                return
            if self._had_interim:
                self._fail(AttemptFailed("headers", f"more than one interim answer came, the last a {status}"))
                return
            self._had_interim = True

    def _take_head(self, status: int, head: bytes, rest: bytes) -> None:
        headers: tuple[tuple[bytes, bytes], ...] = ()
        self._awaits, self._body_left, self._content, self._repeated = "rest", BODY_LIMIT, None, None
        framing = self._framing = self._framing or HttpResponseParser(
            self,
            self._loop,
            HEAD_LIMIT,
            response_with_body=True,
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
            max_headers=_HEADERS_LIMIT,
        )
        try:
            ((message, self._content),), upgraded, _ = framing.feed_data(head)
        except Exception:  # the parser raises many kinds; the status is known, the end of the body is not
            self._finish(clean=False)
        else:
            headers, self._last = message.raw_headers, message.should_close or upgraded
            if rest:
                self._read_rest(rest)
            elif upgraded or (self._content is not None and self._content.is_eof()):
                self._finish(clean=not self._last)
        answer = Answer(status, headers)
        if self._clean and self._received == len(head) + len(rest):
            self._repeated = head + rest, answer
        self._take_answer(answer)

    def _take_answer(self, answer: Answer) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _read_rest(self, data: bytes) -> None:
        framing = self._framing
        assert framing is not None  # noqa: S101 - made for the head
        self._body_left -= len(data)
        if self._body_left < 0:
            with suppress(Exception):  # as below
                framing.feed_data(data[: self._body_left])  # the content may be one to be kept
            self._finish(clean=False)
            return
        try:
            further, *_ = framing.feed_data(data)
            over = self._content is not None and self._content.is_eof()
            stray = bool(further) or (over and framing.feed_eof() is not None)  # another answer, or its beginning
            if over:
                self._framing = None  # it takes nothing after an end
        except Exception:  # not a body, or more than one: the parser raises many kinds
            over = stray = True
        if stray and not self._last:
            self._strayed()
        if over or stray:
            self._finish(clean=not (self._last or stray))

    def _finish(self, *, clean: bool) -> None:
        """The answer is over. ``clean``: the connection can take another request."""
        self._awaits = "nothing"
        transport = self.transport
        # the answer came before the whole request was sent: the rest of it would be read as the next request
        self._clean = clean and transport is not None and not transport.get_write_buffer_size()
        if not self._clean:
            self.abort()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _fail(self, error: AttemptFailed) -> None:
        """Close, and finish everything that is awaited."""
        self._collected = bytearray()
        self._finish(clean=False)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _not_http(self) -> AttemptFailed:
        if self.requests > 1 and not self._had_interim:
            self._strayed()
            return ConnectionStale("bytes came that belong to no answer")
        return AttemptFailed("headers", "the answer is not HTTP")


def _may_become_status_line(text: bytes | bytearray) -> bool:
    return text.startswith(b"HTTP/") or b"HTTP/".startswith(text[:5])
