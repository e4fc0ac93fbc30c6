"""Every operation of /v1."""

from fastapi import APIRouter

from relay.api.backend import Backend
from relay.api.routes import actions, deliveries, events, feed, rooms


def routers_of(backend: Backend) -> list[APIRouter]:
    return [module.router(backend) for module in (feed, events, rooms, deliveries, actions)]
