"""Every operation of /v1."""

from fastapi import APIRouter

from relay.api.backend import Backend
from relay.api.routes import actions, attempts, deliveries, events, feed, livekit, rooms, utterances


def routers_of(backend: Backend) -> list[APIRouter]:
    modules = (feed, events, rooms, deliveries, attempts, utterances, *(() if backend.read_only else (actions,)))
    hints = [livekit.router(backend.livekit)] if backend.livekit else []
    return [*(module.router(backend) for module in modules), *hints]
