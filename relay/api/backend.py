"""What the operations of /v1 work with."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol

from fastapi import Request

from relay.api.access import Viewer
from relay.api.appends import Appends
from relay.api.problems import Problem, mistake, named_types
from relay.clock import Clock
from relay.config.api_endpoint import ApiEndpoint
from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.directory import ApiEndpointDirectory
from relay.dispatch.endpoint.subscription import Subscription
from relay.dispatch.projection import project, to_cloudevent
from relay.outbox.operator.access import Log
from relay.outbox.operator.event_pages import Selection


@dataclass(frozen=True, slots=True)
class Playground:
    """Lets a browser join a room."""

    url: str
    """Of the LiveKit server."""
    token: Callable[[str, str], str]
    """Makes a short-lived token for a room and an identity."""
    hears: Callable[[str], bool]
    """Whether the relay listens in a room of this name."""


class LiveKitWebhooks(Protocol):
    """Takes the webhooks of the LiveKit server."""

    def signed(self, authorization: str) -> bool:
        """Whether the header is that of a webhook, signed with the project's key and not expired."""

    def take(self, authorization: str, body: bytes) -> bool | None:
        """Whether the relay looks at a room because of it; None if the body is not the one that was signed."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The log, and the endpoints as they are now."""

    log: Log
    endpoints: Callable[[], Sequence[Endpoint]]
    """Those of the configuration."""
    clock: Clock
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the relay stops: what waits ends."""
    appends: Appends | None = None
    """What the log's doorbell announces; None if this process has no doorbell: the log is polled then."""
    read_only: bool = False
    """Whether nothing may be changed."""
    playground: Playground | None = None
    """None if it is off."""
    livekit: LiveKitWebhooks | None = None
    """None if the LiveKit server's webhooks are not taken."""
    directory: ApiEndpointDirectory | None = None
    """Those made over the API; None if there can be none."""
    tenants: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The rooms of each tenant that has a token, as globs."""
    most: int = 10_000
    """How many endpoints made over the API there may be."""
    most_of_tenant: int = 1_000
    """How many of them may be one tenant's."""

    def is_configured(self, name: str) -> bool:
        """Whether an endpoint of the configuration has this name."""
        return any(endpoint.name == name for endpoint in self.endpoints())

    def configured(self, name: str) -> Endpoint | None:
        """The endpoint of this name: of the configuration, or made over the API."""
        found = next((endpoint for endpoint in self.endpoints() if endpoint.name == name), None)
        return found or (self.directory.endpoints.get(name) if self.directory else None)

    def made(self, name: str, viewer: Viewer) -> ApiEndpoint | None:
        """The endpoint of this name that was made over the API, if this viewer may know of it."""
        found = self.directory.endpoints.get(name) if self.directory else None
        return found if found and (viewer.is_operator or viewer.tenant == found.tenant is not None) else None

    def allows(self, viewer: Viewer, endpoint: str, room: str) -> bool:
        """Whether this viewer may know of what the endpoint got of a room: a tenant's may have the record of one of the
        configuration that had its name meanwhile."""
        if viewer.tenant is None:
            return True
        made = self.made(endpoint, viewer)
        return made is not None and any(fnmatchcase(room, glob) for glob in made.within)

    def shown(self, viewer: Viewer) -> frozenset[str] | None:
        """The names of the endpoints that a viewer may know of; None for all."""
        if viewer.is_operator:
            return None
        if viewer.endpoint is not None:
            return frozenset({viewer.endpoint})
        made = self.directory.endpoints.values() if self.directory else ()
        return frozenset(
            each.name for each in made if each.tenant == viewer.tenant and not self.is_configured(each.name)
        )

    def sight(self, request: Request, endpoint: str | None = None) -> "Sight":
        """What the sender of the request may see, through this ``endpoint`` if it is named.

        A tenant sees through one of its endpoints at a time. Raises :class:`Problem` if that is nothing.
        """
        viewer = sender(request)
        names = self.shown(viewer)
        if names is None:
            if endpoint is None:
                return Sight(None)
            if (one := self.configured(endpoint)) is None:
                raise Problem(404, "No endpoint has this name.")
            return Sight(one)
        if endpoint is None and len(names) > 1:
            what = "is required of a tenant with several endpoints"
            raise mistake("Name the endpoint that you look for.", "query.endpoint", what)
        if endpoint is not None and endpoint not in names:
            raise Problem(403, "This token does not see that endpoint.")
        if endpoint is None and not names:
            raise Problem(403, "The tenant of this token has no endpoint: it sees what its endpoints receive.")
        found = self.configured(endpoint or next(iter(names)))
        if found is None:
            raise Problem(403, "The endpoint of this token is not configured any more.")
        return Sight(found)

    def renewed(self, request: Request, sight: "Sight") -> "Sight":
        """The same sight while nothing of it has changed, else what the sender may see through this endpoint now.

        Raises :class:`Problem` if that is nothing.
        """
        if sight.endpoint is None or sight.is_through(self.configured(sight.endpoint)):
            return sight
        return self.sight(request, sight.endpoint)

    def only(self, request: Request, endpoint: str | None) -> str | None:
        """The endpoint whose deliveries are asked for; None for all. Raises :class:`Problem` if it may not be seen."""
        return endpoint if sender(request).is_operator else self.sight(request, endpoint).endpoint

    def wanted(self, endpoint: str, room: str, participant: str, event_type: str) -> bool:
        """Whether an endpoint subscribes to it; an unconfigured one, to everything."""
        configured = self.configured(endpoint)
        if configured is None:
            return True
        subscription = Subscription(configured)
        return subscription.wants_stream(room, participant) and subscription.wants_type(event_type)


class Sight:
    """What a viewer may see: everything, or what an endpoint receives."""

    def __init__(self, endpoint: Endpoint | None) -> None:
        self._endpoint = endpoint
        self._subscription = Subscription(endpoint) if endpoint else None

    @property
    def endpoint(self) -> str | None:
        """The only endpoint that it sees; None: all."""
        return self._endpoint.name if self._endpoint else None

    def is_through(self, endpoint: Endpoint | None) -> bool:
        """Whether it was made of this very endpoint: one that is changed is another object."""
        return self._endpoint is endpoint

    @property
    def shows_text(self) -> bool:
        return self._endpoint is None or self._endpoint.include.text

    def types(self, pattern: str) -> list[str] | None:
        """The types that a glob names and that may be seen; None for all. Raises :class:`Problem` if none matches."""
        if pattern == "*" and self._subscription is None:
            return None
        named = named_types(pattern, "query.type")
        return [each for each in named if self._subscription is None or self._subscription.wants_type(each)]

    def stream(self, room: str, participant: str) -> bool:
        return self._subscription is None or self._subscription.wants_stream(room, participant)

    def selection(self, *, types: list[str] | None = None, room: str | None = None) -> Selection:
        """Everything that may be seen, of these types and this room."""
        return Selection(self.stream, types, self.endpoint, room)

    def body(self, body: bytes) -> bytes:
        """An event's JSON as it may be seen: for an endpoint, the bytes that are sent to it."""
        if self._endpoint is None or not body:
            return body
        shown = project(body, self._endpoint.include)
        return to_cloudevent(shown) if self._endpoint.format == "cloudevents" else shown


def sender(request: Request) -> Viewer:
    """The sender of the request, as the guard found it."""
    viewer: Viewer | None = getattr(request.state, "viewer", None)
    if viewer is None:  # a path that the guard did not take for one of /v1
        raise Problem(401, "This address requires a token.", headers={"WWW-Authenticate": "Bearer"})
    return viewer


def manager(request: Request) -> Viewer:
    """The sender, who may make, change and remove endpoints: all, or a tenant's. Raises :class:`Problem` if not."""
    viewer = sender(request)
    if viewer.endpoint is not None:
        raise Problem(403, "This token may only read; use an operator's or a tenant's.")
    return viewer


def operator(request: Request) -> Viewer:
    """The sender, who may change something. Raises :class:`Problem` if it may not."""
    viewer = sender(request)
    if not viewer.is_operator:
        raise Problem(403, "This token may not do that; use an operator's.")
    return viewer
