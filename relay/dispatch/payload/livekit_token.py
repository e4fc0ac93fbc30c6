"""Signs webhooks as LiveKit's server does, so that the SDKs' ``WebhookReceiver`` verifies them.

Facts from livekit/protocol: ``webhook/url_notifier.go`` (claims, five minutes, content type, no ``Bearer`` before the
token) and ``auth/accesstoken.go``.
"""

import base64
import hashlib

import jwt

CONTENT_TYPE = "application/webhook+json"
_VALID_S = 300


class LiveKitSigner:
    """Signs with one key pair of a LiveKit project."""

    def __init__(self, api_key: str, api_secret: str) -> None:
        self._api_key, self._api_secret = api_key, api_secret

    def authorization(self, timestamp: int, body: bytes) -> bytes:
        """The ``Authorization`` header: a token issued now, with the body's SHA-256 as a claim.

        ``timestamp`` is in whole seconds since 1970.
        """
        claims = {
            "iss": self._api_key,
            "iat": timestamp,
            "nbf": timestamp,
            "exp": timestamp + _VALID_S,
            "sha256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
        }
        return jwt.encode(claims, self._api_secret, algorithm="HS256").encode()
