"""Signs requests: Standard Webhooks, version 1, or as LiveKit's server does.

https://github.com/standard-webhooks/standard-webhooks
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

import jwt

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64
"""The allowed lengths of a key, from the specification."""
LIVEKIT_CONTENT_TYPE = "application/webhook+json"
_VALID_S = 300


def new_secret() -> str:
    """Generate a secret of 32 random bytes, as ``whsec_<base64>``."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def parse_secret(secret: str) -> bytes:
    """Decode the key of a ``whsec_<base64>`` secret.

    Raises ``ValueError`` with the problem and the cure; the message never contains the secret.
    """
    cure = "`speech-relay init` makes a good one"
    if not secret.startswith(PREFIX):
        raise ValueError(f"a secret starts with {PREFIX!r}, followed by base64; {cure}")
    encoded = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:  # not only binascii's: a character outside ASCII raises its parent
        raise ValueError(f"what follows {PREFIX!r} is not base64; {cure}") from None
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise ValueError(f"a secret stands for {MIN_BYTES} to {MAX_BYTES} bytes, this one for {len(key)}; {cure}")
    return key


class Signer:
    """Signs with one or more keys; more than one while a receiver rotates its secret."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """``secrets`` as ``whsec_<base64>``; raises ``ValueError`` as ``parse_secret`` does."""
        # Copies of a keyed state, not hmac.digest: that releases the interpreter lock for every message, and
        # reacquiring it from the log's threads costs ten times the hashing.
        self._keyed = [hmac.new(parse_secret(secret), digestmod="sha256") for secret in secrets]

    def __bool__(self) -> bool:
        return bool(self._keyed)

    def signature(self, event_id: bytes, timestamp: int, body: bytes) -> bytes:
        """The ``webhook-signature`` header: one ``v1,<base64>`` per secret, separated by spaces, in their order.

        ``timestamp`` is in whole seconds since 1970 and equals ``webhook-timestamp``.
        """
        head = b"%s.%d." % (event_id, timestamp)
        return b" ".join([b"v1," + base64.b64encode(_digest(keyed, head, body)) for keyed in self._keyed])


class LiveKitSigner:
    """Signs as LiveKit's server does, so that the SDKs' ``WebhookReceiver`` verifies it.

    With one key pair of a LiveKit project. Facts from livekit/protocol: ``webhook/url_notifier.go`` (claims, five
    minutes, content type, no ``Bearer`` before the token) and ``auth/accesstoken.go``.
    """

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


def _digest(keyed: hmac.HMAC, head: bytes, body: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(head)
    mac.update(body)
    return mac.digest()
