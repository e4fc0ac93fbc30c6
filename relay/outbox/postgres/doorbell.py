"""Notifies dispatchers of appends by NOTIFY, on any host.

A ring is a hint, as in SQLite. It is sent after the commit, as a transaction of its own that does not wait for the
disk: one that notifies keeps every other one that does from committing meanwhile. It carries no records: the server
keeps messages in files, which a purge could not reach.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import sqlalchemy as sa

from relay.errors import OutboxError
from relay.outbox.failure import words
from relay.outbox.postgres.direct import Statement, execute
from relay.outbox.postgres.session import LISTENERS, OpenSessions, connect
from relay.outbox.records import Growth

CHANNEL = "speech_relay"
_RING = Statement(b"ring", b"SELECT set_config('synchronous_commit', 'off', true), pg_notify($1::text, $2::text)")
_STREAMS_PER_MESSAGE = 350
"""A message has at most 8000 bytes."""
_HIGHEST = (1 << 63) - 1
_MOST_PER_LOOK = 100
"""Messages that are passed on at once. What a flood of them announces beyond, the sweep finds."""
_AGAIN = 1.0
"""Seconds between two attempts to connect."""

_log = logging.getLogger(__name__)


class NotifyBell:
    """Rings on the writer's connection: a session of its own would be one more for each process."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def ring(self, growth: Growth) -> None:
        """Notify every listener that these streams have grown: a round trip. Never raises."""
        streams = list(growth)
        for start in range(0, len(streams), _STREAMS_PER_MESSAGE):
            message = json.dumps(streams[start : start + _STREAMS_PER_MESSAGE], separators=(",", ":"))
            # the sweep finds what no ring announced
            with suppress(sa.exc.DBAPIError):
                execute(self._connection, _RING, (CHANNEL, message))

    def close(self) -> None:
        """The connection is the writer's."""


class NotifyDoorbell:
    """This process's session that listens. Rings go to ``rung``, on the loop that was running at the start.

    A lost session is replaced; rings are lost until then.
    """

    def __init__(self, url: sa.URL, place: str, sessions: OpenSessions, rung: Callable[[Growth], None]) -> None:
        self._url, self._sessions, self._rung = url, sessions, rung
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._descriptor: int | None = None
        """That of the session, until it is lost."""
        self._returning: asyncio.Task[None] | None = None
        try:
            self._attach(self._listen())
        except psycopg.Error as error:
            raise OutboxError(f"outbox {place}: {words(error)}") from error

    def close(self) -> None:
        """Stop listening. May be called more than once."""
        if self._closed:
            return
        self._closed = True
        if self._returning is not None:
            self._returning.cancel()
        self._detach()

    def _listen(self) -> "psycopg.Connection[Any]":
        session = connect(self._url, self._sessions)
        try:
            session.execute(f"LISTEN {CHANNEL}")
            session.execute("SELECT pg_advisory_lock_shared(%s, 0)", (LISTENERS,))
        except BaseException:
            session.close()
            raise
        return session

    def _attach(self, session: "psycopg.Connection[Any]") -> None:
        self._session, descriptor = session, session.fileno()
        self._descriptor = descriptor
        self._loop.add_reader(descriptor, self._receive)

    def _detach(self) -> None:
        # a lost session does not say which descriptor it had, and the next socket may get the same
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = None
        self._session.close()

    def _receive(self) -> None:
        libpq = self._session.pgconn
        try:
            libpq.consume_input()
            passed_on = 0
            while (ring := libpq.notifies()) is not None:
                passed_on += 1
                if passed_on <= _MOST_PER_LOOK and (growth := _growth(ring.extra)):
                    self._rung(growth)
        except psycopg.Error as error:
            _log.warning("rings are lost until the database is back, and deliveries late by a second: %s", words(error))
            self._detach()
            self._returning = self._loop.create_task(self._return())

    async def _return(self) -> None:
        while True:
            await asyncio.sleep(_AGAIN)
            opening = asyncio.ensure_future(asyncio.to_thread(self._listen))
            try:
                self._attach(await asyncio.shield(opening))
            except psycopg.Error:
                continue
            except asyncio.CancelledError:
                opening.add_done_callback(_dispose)
                raise
            return


def _dispose(opening: "asyncio.Future[psycopg.Connection[Any]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _growth(message: bytes) -> Growth:
    """Decode a message; empty if it is not one of this version's.

    Every user of the database may send one: it is a hint, and whatever it says must do no harm.
    """
    try:
        streams = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(streams, list) or len(streams) > _STREAMS_PER_MESSAGE:
        return {}
    if not all(type(stream) is int and 0 < stream <= _HIGHEST for stream in streams):
        return {}
    return {stream: [] for stream in streams}
