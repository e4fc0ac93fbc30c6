"""Finds the room's current sid, from the server where the connection's may be outdated."""

import asyncio
import logging

from livekit import api, rtc

from relay.capture.livekit.access import API_ERRORS, Access, RoomsOnly

log = logging.getLogger(__name__)

_ASK_WITHIN_S = 2.0


class RoomSid:
    """The room's sid, which changes when the server restarts. ``rtc.Room`` may learn the new one seconds after the
    tracks arrive, with the server's next update of the room; until then the server is asked.

    Without ``access`` it is the sid of ``rtc.Room``.
    """

    def __init__(self, room: rtc.Room, access: Access | RoomsOnly | None) -> None:
        self._room = room
        self._access = access
        self._doubted = False
        self._asked: str | None = None
        room.on("reconnecting", self._doubt)
        room.on("room_updated", self._trust)

    async def __call__(self) -> str:
        known = await self._room.sid
        if not self._doubted or self._access is None:
            return known
        if self._asked is None:
            self._asked = await self._ask(self._access)
        return self._asked or known

    def _doubt(self) -> None:
        self._doubted, self._asked = True, None

    def _trust(self) -> None:
        self._doubted = False

    async def _ask(self, access: Access | RoomsOnly) -> str | None:
        try:
            async with asyncio.timeout(_ASK_WITHIN_S), access.client() as client:
                found = await client.room.list_rooms(api.ListRoomsRequest(names=[self._room.name]))
        except API_ERRORS as error:
            log.warning("The LiveKit server does not say which room this is now (%s)", type(error).__name__)
            return None
        return found.rooms[0].sid if found.rooms else None
