"""The errors of one POST, which ``HttpTransport`` translates into an outcome."""

import ssl

from relay.dispatch.http.outcome import Stage
from relay.errors import RelayError


class AttemptFailed(RelayError):
    """An attempt that got no complete answer. ``stage`` says where it ended, the text says why."""

    def __init__(self, stage: Stage, text: str) -> None:
        super().__init__(text)
        self.stage: Stage = stage


class ConnectionStale(AttemptFailed):
    """The connection ended, or was out of step, before the first byte of an answer to this request."""

    def __init__(self, text: str) -> None:
        super().__init__("headers", text)


class OutOfResources(RelayError):
    """This machine has no file descriptors, memory or ports left."""


BY_RECEIVER = "the receiver "
"""How an alert in words begins."""
_CERTIFICATE_DEMANDED = "demands a client certificate: name one in tls.cert"
_CERTIFICATE_REFUSED = "does not accept the client certificate in tls.cert"
_HANDSHAKE_REFUSED = "refuses the TLS handshake"
_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _CERTIFICATE_DEMANDED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _CERTIFICATE_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _CERTIFICATE_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _CERTIFICATE_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _CERTIFICATE_REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _CERTIFICATE_REFUSED,
    "TLSV1_ALERT_UNKNOWN_CA": _CERTIFICATE_REFUSED,
    # with TLS 1.2 the answer to a client without a certificate, and to one with other ciphers
    "SSLV3_ALERT_HANDSHAKE_FAILURE": f"{_HANDSHAKE_REFUSED}: it may demand a client certificate, in tls.cert",
}
"""By OpenSSL's names."""


def alert_in_words(error: object) -> str | None:
    """What a receiver says that ends a TLS connection with an alert; None for other errors."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if not reason or "_ALERT_" not in reason:
        return None
    said = reason.partition("_ALERT_")[2].lower().replace("_", " ")
    return BY_RECEIVER + _ALERTS.get(reason, f"{_HANDSHAKE_REFUSED}: {said}")
