"""Lets the page join a room of the LiveKit server with a browser's microphone."""

import secrets

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from relay.api.answers import AnswerModel
from relay.api.backend import Playground, operator
from relay.api.problems import OF_API, documented

PREFIX = "playground-"
_OTHERS = (413, 415)


class PlaygroundOrder(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    room: str = Field(default="", max_length=32, pattern=r"^[a-z0-9-]*$")
    """What follows ``playground-`` in the room's name; by default something new."""


class PlaygroundPass(AnswerModel):
    url: str
    """Of the LiveKit server."""
    token: str
    """Joins this room under this identity, and publishes a microphone. It is valid for two minutes."""
    room: str
    identity: str
    heard: bool
    """Whether ``capture.rooms`` includes the room."""


def router(playground: Playground) -> APIRouter:
    routes = APIRouter(prefix="/v1/playground", tags=["playground"], responses=documented((*OF_API, *_OTHERS)))

    @routes.post("/join")
    async def join(request: Request, order: PlaygroundOrder) -> PlaygroundPass:
        """Get a token to join a room whose name begins with ``playground-``."""
        operator(request)
        room, identity = PREFIX + (order.room or secrets.token_hex(3)), f"guest-{secrets.token_hex(3)}"
        return PlaygroundPass(
            url=playground.url,
            token=playground.token(room, identity),
            room=room,
            identity=identity,
            heard=playground.hears(room),
        )

    return routes
