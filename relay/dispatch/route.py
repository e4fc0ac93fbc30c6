"""An endpoint made ready: what does not change from one event to the next is worked out once."""

import httpx

from relay import __version__
from relay.config.models import Endpoint
from relay.dispatch.signing import Signer
from relay.dispatch.subscription import Subscription
from relay.dispatch.transport import Headers
from relay.outbox.records import Record


class Route:
    """Where to send, how to sign and what to leave out, for one endpoint.

    Raises ``ConfigError`` for an endpoint that is to sign and has no secret.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self.url = httpx.URL(str(endpoint.url))
        self.timeout = endpoint.timeout.total_seconds()
        self.concurrency = endpoint.concurrency
        self.retry = endpoint.retry
        self.include = endpoint.include
        self.subscription = Subscription(endpoint)
        self._signer = Signer(endpoint.secrets)
        fixed = {
            "content-type": "application/json",
            "user-agent": f"speech-relay/{__version__}",
            "accept-encoding": "identity",
        } | {name.lower(): value for name, value in endpoint.headers.items()}
        self._fixed = [(name.encode("ascii"), value.encode()) for name, value in fixed.items()]

    def headers(self, record: Record, body: bytes, previous: int, now_ms: int) -> Headers:
        """The headers of one attempt; ``previous`` is the sequence of the event sent before this one."""
        event_id, timestamp = record.id.encode(), now_ms // 1000
        headers = [
            *self._fixed,
            (b"webhook-id", event_id),
            (b"webhook-timestamp", b"%d" % timestamp),
            (b"relay-previous-sequence", b"%d" % previous),
        ]
        if self._signer:
            headers.append((b"webhook-signature", self._signer.signature(event_id, timestamp, body)))
        return headers
