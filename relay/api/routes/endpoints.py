"""Endpoints at run time: made, changed, shown and removed, by an operator or by a tenant for itself."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from relay.api.access import Viewer
from relay.api.backend import Backend, manager, sender
from relay.api.endpoint_answers import MadeEndpoint
from relay.api.problems import OF_ACTIONS, OF_CHANGES, Problem, documented, mistake
from relay.api.routes.actions import Name, Order
from relay.clock import epoch_ms
from relay.config.api_endpoint import ApiEndpointOptions
from relay.config.fields import NAME
from relay.dispatch.endpoint.directory import ApiEndpointDirectory
from relay.dispatch.signing import new_secret
from relay.events.catalog import CATALOG, matches
from relay.events.operator import RelayEvent
from relay.outbox.log.api_endpoints import NewApiEndpoint
from relay.outbox.log.audience import StreamAudience
from relay.outbox.records import Stored, StoredApiEndpoint

NewName = Annotated[
    str,
    Path(pattern=NAME, description="Lower-case letters, digits, `-` and `_`."),
]
_OF_RELAY = tuple(name for name, kind in CATALOG.items() if issubclass(kind, RelayEvent))
_READ_ONLY = "This endpoint is one of the configuration file: change it there."
_REFUSED = {
    Stored.CONFIGURED: _READ_ONLY,
    Stored.TAKEN: "An endpoint of another tenant has this name; choose another one.",
    Stored.FORMER: "The log still has the record of a former endpoint of this name; choose another one.",
    Stored.FULL: "There are as many endpoints as api.runtime_endpoints.max allows; remove some.",
    Stored.TENANT_FULL: "The tenant has as many endpoints as api.runtime_endpoints.max_per_tenant allows; remove some.",
    Stored.FORMER_FULL: "The log has the record of too many removed endpoints of this tenant; change endpoints, and do "
    "not remove them.",
    Stored.PATTERNS_FULL: "The patterns of the tenant's endpoints are too many or too long together; use fewer stars "
    "or shorter lists.",
}
_OF_TENANT = (Stored.FULL, Stored.TENANT_FULL, Stored.FORMER_FULL, Stored.PATTERNS_FULL)
"""Reasons that a tenant may know: they say nothing of others."""
_TAKEN = "This name is taken; choose another one."


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["endpoints"])
    log = backend.log.api_endpoints

    @routes.put(
        "/endpoints/{name}",
        responses={201: {"model": MadeEndpoint, "description": "It is made."}, **documented(OF_ACTIONS)},
    )
    async def put_endpoint(
        request: Request, response: Response, name: NewName, options: ApiEndpointOptions
    ) -> MadeEndpoint:
        """Make an endpoint, or change its options: those that are left out have their defaults.

        It receives what is appended from now on, within a second. Its secret is in the answer only if it is made.
        """
        viewer, directory = manager(request), _directory(backend)
        new = _wanted(backend, viewer, name, options)
        if backend.is_configured(name):
            raise Problem(409, _READ_ONLY if viewer.is_operator else _TAKEN)
        secret = new_secret()
        stored = await log.put(new, secret, most=backend.most, most_of_tenant=backend.most_of_tenant)
        if not stored.done:
            is_hidden = stored not in _OF_TENANT and not viewer.is_operator
            raise Problem(409, _TAKEN if is_hidden else _REFUSED[stored])
        await directory.poll()
        if stored is Stored.MADE:
            response.status_code = 201
        return MadeEndpoint.of(
            await _stored(backend, name),
            viewer,
            replaced=False,
            changed=stored is not Stored.UNCHANGED,
            secret=secret if stored is Stored.MADE else None,
        )

    @routes.get("/endpoints/{name}", responses=documented(OF_CHANGES))
    async def get_endpoint(request: Request, name: Name) -> MadeEndpoint:
        """An endpoint that was made over the API. Those of the configuration file are shown by their state only, in
        the list."""
        viewer = sender(request)
        _made(backend, viewer, name)
        return MadeEndpoint.of(await _stored(backend, name), viewer, replaced=backend.is_configured(name))

    @routes.delete("/endpoints/{name}", status_code=204, responses=documented(OF_CHANGES))
    async def delete_endpoint(request: Request, name: Name) -> None:
        """Remove an endpoint that was made over the API. What it has not received is dropped."""
        _made(backend, manager(request), name)
        await log.remove(name)
        await _directory(backend).poll()

    @routes.post("/endpoints/{name}/rotate", responses=documented(OF_ACTIONS))
    async def rotate_secret(request: Request, name: Name, order: RotateOrder) -> MadeEndpoint:
        """Make a new secret. Requests are signed with it and with the one before, until the next rotation."""
        viewer = manager(request)
        _made(backend, viewer, name)
        secret = new_secret()
        if not await log.rotate(name, secret):
            raise _unknown()
        await _directory(backend).poll()
        replaced = backend.is_configured(name)
        return MadeEndpoint.of(await _stored(backend, name), viewer, replaced=replaced, changed=True, secret=secret)

    return routes


class RotateOrder(Order):
    """Nothing to choose: ``{}``."""


def _directory(backend: Backend) -> ApiEndpointDirectory:
    if backend.directory is None:
        raise Problem(409, "This process makes no endpoints: ask the relay that sends.")
    return backend.directory


def _wanted(backend: Backend, viewer: Viewer, name: str, options: ApiEndpointOptions) -> NewApiEndpoint:
    """What is to be stored. Raises :class:`Problem` if the viewer may not have it."""
    if viewer.tenant is not None and options.tenant not in (None, viewer.tenant):
        raise Problem(403, "This token makes endpoints of its own tenant only.")
    tenant = viewer.tenant or options.tenant
    expires_at = None if options.expires_at is None else epoch_ms(options.expires_at)
    if expires_at is not None and expires_at <= backend.clock.now_ms():
        raise mistake("It has expired.", "body.expires_at", "has passed")
    within = ("*",) if tenant is None else tuple(backend.tenants.get(tenant, ("*",)))
    of_relay = tenant is None and any(matches(each, options.events) for each in _OF_RELAY)
    audience = StreamAudience(options.rooms, options.participants, within, relay=of_relay)
    return NewApiEndpoint(name, tenant, options.written(), audience, expires_at, viewer.name)


def _made(backend: Backend, viewer: Viewer, name: str) -> None:
    """Raises :class:`Problem` if the viewer knows no endpoint of this name that was made over the API."""
    if backend.made(name, viewer) is None:
        if backend.is_configured(name) and viewer.is_operator:
            raise Problem(409, _READ_ONLY)
        raise _unknown()


async def _stored(backend: Backend, name: str) -> StoredApiEndpoint:
    stored = await backend.log.api_endpoints.get(name)
    if stored is None:  # removed meanwhile
        raise _unknown()
    return stored


def _unknown() -> Problem:
    return Problem(404, "No endpoint of this name was made over the API.")
