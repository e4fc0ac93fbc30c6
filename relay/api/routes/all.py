"""Every operation of /v1, and the page."""

from fastapi import APIRouter

from relay.api.assets import page
from relay.api.backend import Backend
from relay.api.routes import actions, attempts, deliveries, endpoints, events, feed, livekit, rooms, utterances


def routers_of(backend: Backend) -> list[APIRouter]:
    changing = () if backend.read_only else (endpoints, actions)
    modules = (feed, events, rooms, deliveries, attempts, utterances, *changing)
    hints = [livekit.router(backend.livekit)] if backend.livekit else []
    server = backend.playground.url if backend.playground else None
    return [*(module.router(backend) for module in modules), *hints, page(livekit=server)]
