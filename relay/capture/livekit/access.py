"""Connects to the LiveKit server, and explains its refusals."""

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta

import aiohttp
from google.protobuf.message import DecodeError
from livekit import api, rtc
from livekit.api.twirp_client import ServerError, ServerErrorCode

from relay.config.models import LiveKit
from relay.errors import ConfigError, LiveKitError

_TIMEOUT_S = 5.0

_GUEST_TTL = timedelta(minutes=2)
"""To join: the server renews the token of a participant who is in the room."""

_ROOMS_TTL = timedelta(days=365)
"""Longer than a service runs. After it expires, a recreated room has its former sid for some seconds."""


@dataclass(frozen=True, slots=True)
class Access:
    """A server's address and credentials, all present."""

    url: str
    api_key: str
    api_secret: str = field(repr=False)

    @classmethod
    def of(cls, config: LiveKit) -> "Access":
        """Raises ConfigError naming the missing ones."""
        values = {
            "url": config.url,
            "api_key": config.api_key,
            "api_secret": config.api_secret.get_secret_value() if config.api_secret else None,
        }
        missing = [key for key, value in values.items() if not value]
        if missing:
            keys = ", ".join(f"livekit.{key} (or LIVEKIT_{key.upper()})" for key in missing)
            raise ConfigError(f"Not set: {keys}. Put it into config.yaml, .env or the environment.")
        return cls(url=values["url"] or "", api_key=values["api_key"] or "", api_secret=values["api_secret"] or "")

    def client(self) -> api.LiveKitAPI:
        """A client for the server's API; use it with ``async with``."""
        return api.LiveKitAPI(self.url, self.api_key, self.api_secret, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))

    def guest_token(self, room: str, identity: str) -> str:
        """A token that joins this room to publish a microphone, and can do nothing else."""
        grants = api.VideoGrants(
            room_join=True,
            room=room,
            can_publish=True,
            can_publish_sources=["microphone"],
            can_publish_data=False,
            can_subscribe=False,
        )
        token = api.AccessToken(self.api_key, self.api_secret).with_identity(identity).with_name("Guest")
        return token.with_ttl(_GUEST_TTL).with_grants(grants).to_jwt()

    def rooms_only(self) -> "RoomsOnly":
        """The same server for a job process, which can look up rooms and nothing else."""
        token = api.AccessToken(self.api_key, self.api_secret).with_ttl(_ROOMS_TTL)
        return RoomsOnly(self.url, token.with_grants(api.VideoGrants(room_list=True)).to_jwt())


@dataclass(frozen=True, slots=True)
class RoomsOnly:
    """A server's address and a token that lists its rooms: given to job processes instead of the secret."""

    url: str
    token: str = field(repr=False)

    def client(self) -> api.LiveKitAPI:
        """A client for the server's API; use it with ``async with``."""
        return api.LiveKitAPI.with_token(self.token, self.url, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))


class Unreachable(LiveKitError):
    """The server does not answer now; it may later."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server that accepts the credentials reports about itself."""

    url: str
    rooms: int
    """The number of open rooms."""


async def verify_access(access: Access) -> ServerFacts:
    """List the server's rooms. Raises LiveKitError with the remedy; :class:`Unreachable` where waiting may help."""
    async with access.client() as client:
        try:
            listed = await client.room.list_rooms(api.ListRoomsRequest())
        except API_ERRORS as error:
            raise explain(error, access.url) from error
    return ServerFacts(url=access.url, rooms=len(listed.rooms))


API_ERRORS = (ServerError, aiohttp.ClientError, TimeoutError, OSError, DecodeError, ValueError)
"""The exceptions of a call to the server's API. The last two are an invalid answer and an invalid address."""


def explain(error: Exception, url: str) -> LiveKitError:
    """The operator's message for an exception of the server's API."""
    match error:
        case ServerError(status=401) | ServerError(code=ServerErrorCode.UNAUTHENTICATED):
            return LiveKitError(
                f"The LiveKit server at {url} refuses the API key or its secret. Check LIVEKIT_API_KEY and "
                "LIVEKIT_API_SECRET (livekit.api_key and livekit.api_secret), and that this machine's clock is right."
            )
        case ServerError(status=403) | ServerError(code=ServerErrorCode.PERMISSION_DENIED):
            return LiveKitError(
                f"The LiveKit server at {url} does not let this API key list rooms. Use one of the server's own keys."
            )
        case ServerError(status=status) if status >= 500:
            return Unreachable(f"The LiveKit server at {url} answers {status}. Look into the server's own log.")
        case ServerError() | DecodeError():
            return LiveKitError(
                f"What answers at {url} is no LiveKit server. Check LIVEKIT_URL (livekit.url): ws:// or wss://, host "
                "and port of the server itself."
            )
        case aiohttp.ClientConnectorCertificateError(certificate_error=cause):  # a ValueError too; it may be renewed
            return Unreachable(
                f"The LiveKit server at {url} cannot be used: its certificate is not accepted "
                f"({getattr(cause, 'verify_message', cause)})."
            )
        case aiohttp.ClientSSLError():
            return Unreachable(
                f"What answers at {url} does not speak TLS: is LIVEKIT_URL (livekit.url) rather ws:// than wss://?"
            )
        case ValueError():
            return LiveKitError(f"{url} is not a LiveKit server's address. Check LIVEKIT_URL (livekit.url).")
        case TimeoutError():
            return Unreachable(f"The LiveKit server at {url} did not answer within {_TIMEOUT_S:g} s.")
        case _:
            return Unreachable(
                f"The LiveKit server at {url} cannot be reached. Check LIVEKIT_URL (livekit.url), and that it runs."
            )


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
