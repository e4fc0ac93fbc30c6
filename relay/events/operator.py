"""``ping``: the relay to an endpoint's operator, about no room."""

from typing import Literal

from relay.events.envelope import Event
from relay.events.model import Model


class PingData(Model):
    endpoint: str
    """The name that the endpoint has in config.yaml."""


class Ping(Event):
    """A test that the URL, the signature and the receiver work."""

    type: Literal["ping"] = "ping"
    data: PingData
