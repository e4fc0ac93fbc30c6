"""A test of an endpoint, past the log: the transport, the signature and the egress rules are those of a delivery."""

from relay.clock import instant
from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.route import Route
from relay.dispatch.http.outcome import Outcome
from relay.dispatch.http.transport import open_transport
from relay.dispatch.projection import Projections
from relay.events.operator import Ping, PingData
from relay.ids import new_id
from relay.outbox.records import Record


def ping(endpoint: str, now: int) -> Record:
    """A ping to the endpoint of this name, created at ``now`` (epoch milliseconds)."""
    event = Ping(id=new_id("evt"), timestamp=instant(now), data=PingData(endpoint=endpoint))
    body = event.model_dump_json().encode()
    return Record(0, event.id, event.type, event.delivery, None, None, now, None, body)


async def post_sample(endpoint: Endpoint, record: Record, now: int, *, most_s: float = float("inf")) -> Outcome:
    """POST it once, signed and marked as a sample, after applying the endpoint's ``include``.

    ``most_s``: seconds for the attempt, if the endpoint's ``timeout`` is longer. Raises ``ConfigError`` if the endpoint
    cannot be used.
    """
    route, transport = Route(endpoint), open_transport(endpoint)
    try:
        body = Projections().of(record, route.shape)
        headers = [*route.headers(record, body, 0, now), (b"relay-sample", b"true")]
        return await transport.post(route.url, headers, body, min(route.timeout, most_s))
    finally:
        await transport.aclose()
