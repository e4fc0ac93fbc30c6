"""Determines whether an endpoint is being sent to, and if not, what blocks it."""

from enum import Enum

from relay.config.models import Config
from relay.outbox.opening import attended
from relay.outbox.operator.access import Log


class WaitsFor(Enum):
    """What must happen before anything is sent to an endpoint."""

    CONFIGURATION = "configuration"
    """The configuration must name it."""
    ENABLING = "enabling"
    RELAY = "relay"
    """A relay must run with it."""


async def waits_for(log: Log, config: Config, endpoint: str) -> WaitsFor | None:
    """What the endpoint waits for; None if a running relay sends to it. A breaker's rest does not count."""
    state = (await log.inspection.endpoint_states({endpoint})).get(endpoint)
    served = state is not None and state.active and attended(config.outbox.url)
    made = state is not None and state.by_api and state.active  # over the API: no configuration names it
    if not served and not made and all(each.name != endpoint for each in config.endpoints):
        return WaitsFor.CONFIGURATION
    if state is not None and state.disabled_at is not None:
        return WaitsFor.ENABLING
    return None if served else WaitsFor.RELAY


def once(waiting: WaitsFor, endpoint: str) -> str:
    """The same in words, with the cure."""
    match waiting:
        case WaitsFor.CONFIGURATION:
            return f"once the configuration names {endpoint} again"
        case WaitsFor.ENABLING:
            return f"once {endpoint} is enabled: `speech-relay endpoints enable {endpoint}`"
        case WaitsFor.RELAY:
            return f"once a relay runs with {endpoint} (none of this user's was found on this machine)"
