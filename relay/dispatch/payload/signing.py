"""Standard Webhooks signatures, version 1: https://github.com/standard-webhooks/standard-webhooks"""

import base64
import hmac
import secrets
from collections.abc import Iterable

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64
"""The allowed lengths of a key, from the specification."""


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
        return b" ".join(b"v1," + base64.b64encode(_digest(keyed, head, body)) for keyed in self._keyed)


def _digest(keyed: hmac.HMAC, head: bytes, body: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(head)
    mac.update(body)
    return mac.digest()
