"""A prepared endpoint: where its events are sent and how they are signed; and a test of that."""

from collections.abc import Callable

import httpx

from relay import __version__
from relay.clock import instant
from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.subscription import Subscription
from relay.dispatch.http.outcome import Outcome
from relay.dispatch.http.transport import Headers, open_transport
from relay.dispatch.projection import CLOUDEVENTS_CONTENT_TYPE, Projections, Shape
from relay.dispatch.signing import LIVEKIT_CONTENT_TYPE, LiveKitSigner, Signer
from relay.events.operator import Ping, PingData
from relay.ids import new_id
from relay.outbox.records import Record

Sign = Callable[[bytes, int, bytes], Headers]
"""Returns the headers that sign an event id, a time in whole seconds since 1970, and a body."""


class Route:
    """Where to send, how to sign and what to leave out, for one endpoint.

    Raises ``ConfigError`` for an endpoint that must sign and has no key or secret.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.config = endpoint
        self.name = endpoint.name
        self.url = httpx.URL(str(endpoint.url))
        self.timeout = endpoint.timeout.total_seconds()
        self.subscription = Subscription(endpoint)
        self.shape = Shape(endpoint.include, endpoint.format)
        self._sign = _signing(endpoint)
        # the relay's headers come last: an operator's header never replaces one of them
        fixed = {name.lower(): value for name, value in endpoint.headers.items()} | {
            "content-type": _content_type(endpoint),
            "user-agent": f"speech-relay/{__version__}",
            "accept-encoding": "identity",
        }
        self._fixed = [(name.encode("ascii"), value.encode()) for name, value in fixed.items()]

    def headers(self, record: Record, body: bytes, previous: int, now_ms: int) -> Headers:
        """The headers of one attempt; ``previous`` is the sequence of the event sent before this one."""
        event_id, timestamp = record.id.encode(), now_ms // 1000
        return [
            *self._fixed,
            (b"webhook-id", event_id),
            (b"webhook-timestamp", b"%d" % timestamp),
            (b"relay-previous-sequence", b"%d" % previous),
            *self._sign(event_id, timestamp, body),
        ]


def _content_type(endpoint: Endpoint) -> str:
    if endpoint.format == "cloudevents":
        return CLOUDEVENTS_CONTENT_TYPE
    # LiveKit's own receivers read the body only with this content type
    return LIVEKIT_CONTENT_TYPE if endpoint.signing == "livekit" else "application/json"


def _signing(endpoint: Endpoint) -> Sign:
    match endpoint.signing:
        case "none":
            return lambda event_id, timestamp, body: []
        case "livekit":
            token = LiveKitSigner(*endpoint.livekit_pair)
            return lambda event_id, timestamp, body: [(b"authorization", token.authorization(timestamp, body))]
        case "standard":
            signer = Signer(endpoint.secrets)
            return lambda event_id, timestamp, body: [
                (b"webhook-signature", signer.signature(event_id, timestamp, body))
            ]


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
