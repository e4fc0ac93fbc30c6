"""Every operation of /v1, and the page."""

from fastapi import APIRouter

from relay.api.backend import Backend
from relay.api.routes import actions, deliveries, endpoints, events, feed, livekit, rooms, status
from relay.api.routes.page import joining, page


def routers_of(backend: Backend) -> list[APIRouter]:
    changing = () if backend.read_only else (endpoints, actions)
    modules = (feed, events, rooms, deliveries, status, *changing)
    routers = [module.router(backend) for module in modules]
    if backend.livekit:
        routers.append(livekit.router(backend.livekit))
    if backend.playground:
        routers.append(joining(backend.playground))
    return [*routers, page(livekit=backend.playground.url if backend.playground else None)]
