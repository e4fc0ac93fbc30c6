"""Notifies the operator's endpoints that a limit of ``capture`` was exceeded."""

import asyncio
import logging
from typing import Protocol

from relay.errors import OutboxError
from relay.events.envelope import RoomRef
from relay.events.model import Model
from relay.events.operator import CaptureLimit, CaptureLimited, CaptureLimitedData, RelayEvent

log = logging.getLogger(__name__)


class Room(Protocol):
    """A job's room, as LiveKit identifies it."""

    @property
    def name(self) -> str: ...

    @property
    async def sid(self) -> str: ...


class Notices(Protocol):
    """The log that takes events about capture. Raises ``OutboxError`` where they cannot be written."""

    async def tell(self, kind: type[RelayEvent], data: Model) -> None: ...


class Limited:
    """Append ``capture.limited`` in the background. Requires a running event loop."""

    def __init__(self, outbox: Notices, room: Room) -> None:
        self._outbox = outbox
        self._room = room
        self._telling: set[asyncio.Task[None]] = set()

    def __call__(self, limit: CaptureLimit, maximum: int, participant_sid: str | None) -> None:
        task = asyncio.create_task(self._tell(limit, maximum, participant_sid), name="capture_limited")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, limit: CaptureLimit, maximum: int, participant_sid: str | None) -> None:
        room = RoomRef(sid=await self._room.sid, name=self._room.name)
        data = CaptureLimitedData(limit=limit, maximum=maximum, room=room, participant_sid=participant_sid)
        try:
            await self._outbox.tell(CaptureLimited, data)
        except OutboxError as error:
            log.warning("capture.limited cannot be recorded: %s", error)
