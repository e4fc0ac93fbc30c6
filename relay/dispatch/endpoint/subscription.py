"""Which events an endpoint gets."""

from fnmatch import fnmatchcase

from relay.config.api_endpoint import ApiEndpoint
from relay.config.endpoint import Endpoint
from relay.events.catalog import matches

_ANY_ROOM = ("*",)


class Subscription:
    """An endpoint's globs over event types, rooms and participants' identities."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._events, self._rooms, self._participants = endpoint.events, endpoint.rooms, endpoint.participants
        self._types: dict[str, bool] = {}
        made = endpoint if isinstance(endpoint, ApiEndpoint) else None
        self._within = made.within if made else _ANY_ROOM
        self._relay = made is None or made.tenant is None

    def wants_stream(self, room: str, participant: str) -> bool:
        """Whether anything of this room (by name) and participant (by identity) is subscribed to. The relay's own
        streams, which belong to no room, go to every endpoint that subscribes to their events, unless it is a
        tenant's: they describe other endpoints."""
        if not room:
            return self._relay
        return (
            (self._within is _ANY_ROOM or any(fnmatchcase(room, glob) for glob in self._within))
            and any(fnmatchcase(room, glob) for glob in self._rooms)
            and any(fnmatchcase(participant, glob) for glob in self._participants)
        )

    def wants_type(self, event_type: str) -> bool:
        """Whether events of this type are subscribed to. Cached: there are few types and many events."""
        known = self._types.get(event_type)
        if known is None:
            known = self._types[event_type] = matches(event_type, self._events)
        return known
