"""The dispatcher that is tortured: the real one, over the real log, in a process that can be told when to die.

It dies of SIGKILL, which nothing in it can notice: at the n-th time that it passes a point, if it was told one.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.dispatch import state
from relay.dispatch.http.outcome import Outcome
from relay.dispatch.http.transport import HttpTransport
from relay.outbox.outbox import Outbox
from relay.outbox.records import Settlement
from relay.outbox.sqlite.database import SQLite

Point = Literal["before commit", "after commit", "before post", "after post"]
POINTS: tuple[Point, ...] = ("before commit", "after commit", "before post", "after post")


@dataclass
class Death:
    """At the ``nth`` time that ``point`` is passed, counted from 1."""

    point: Point
    nth: int

    def pass_by(self, point: Point) -> None:
        if point == self.point:
            self.nth -= 1
            if not self.nth:
                os.kill(os.getpid(), signal.SIGKILL)


class MortalDatabase(SQLite):
    def __init__(self, path: str, death: Death) -> None:
        super().__init__(path)
        self._death = death

    @contextmanager
    def turn(self, connection: sa.Connection) -> Iterator[None]:
        with super().turn(connection):
            yield
        self._death.pass_by("after commit")

    @contextmanager
    def transaction(self, connection: sa.Connection, *, alone: bool, opens: bool = False) -> Iterator[None]:
        with super().transaction(connection, alone=alone, opens=opens):
            yield
            self._death.pass_by("before commit")

    def settle(self, connection: sa.Connection, settlements: Sequence[Settlement], now: int) -> bool:
        if not connection.in_transaction():  # a transaction by itself: nobody comes between it and its commit
            self._death.pass_by("before commit")
        return super().settle(connection, settlements, now)


def make_posts_mortal(death: Death) -> None:
    """In this process, which is nobody else's."""
    post = HttpTransport.post

    async def mortal(self: HttpTransport, *arguments: Any) -> Outcome:
        death.pass_by("before post")
        outcome = await post(self, *arguments)
        death.pass_by("after post")
        return outcome

    setattr(HttpTransport, "post", mortal)  # noqa: B010 - the one place where every POST comes by


def main(
    database: str,
    endpoints: list[Mapping[str, Any]],
    death: Death | None = None,
    name: str = "relay",
    lease_ms: int | None = None,
) -> None:
    """Deliver until SIGTERM, or until the death. What it logs stands in a file beside the database.

    With ``lease_ms`` its lanes are leased for so long, in place of the 45 seconds that it would be.
    """
    logging.basicConfig(filename=f"{database}.messages", level=logging.WARNING)
    if lease_ms is not None:
        setattr(state, "lease_ms_for", lambda _: lease_ms)  # noqa: B010 - for this process, which is a test's own
    asyncio.run(_deliver(database, [Endpoint.model_validate(one) for one in endpoints], death, name))


async def _deliver(database: str, endpoints: list[Endpoint], death: Death | None, name: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clock = SystemClock()
    opened = SQLite(database)
    if death is not None:
        make_posts_mortal(death)
        opened.close()
        opened = MortalDatabase(database, death)
    outbox = Outbox(opened, name=name, clock=clock, lease_ms=6000, retry_s=10)
    async with delivering(outbox, endpoints, clock, grace_s=10):
        await stop.wait()
    await outbox.aclose()
