"""Who sends a request, by its token, and how many requests it may send."""

import hashlib
import hmac
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from relay.api.problems import Problem
from relay.config.api import Token

_OF_THE_HOST = ("dns", "egress", "connect", "the relay's own fault")
PER_SECOND = 20.0
BURST = 100.0
"""Requests that a token may send at once after a pause."""
MOST_AT_ONCE = 4
"""Requests under way at once of one endpoint's tokens, or of one tenant's: the log is read for one after the other."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """The sender of a request."""

    name: str
    """Of its token; empty if none is required."""
    endpoint: str | None = None
    """The endpoint that its token is bound to: it sees what that endpoint receives."""
    tenant: str | None = None
    """The tenant that its token is bound to: it sees what this tenant's endpoints receive, and changes these."""

    @property
    def is_operator(self) -> bool:
        """Whether it is bound to nothing."""
        return self.endpoint is None and self.tenant is None

    def stage(self, stage: str) -> str:
        """Where an attempt failed, as this viewer may know it. A refused address would show which names the host's
        resolver knows: to all but operators it looks like a name without an address."""
        return "dns" if stage == "egress" and not self.is_operator else stage

    def reason(self, reason: str | None) -> str | None:
        """Why an attempt failed, as this viewer may know it. Operators get everything; others only the stage, where
        the text may describe the host's network."""
        if reason is None or self.is_operator:
            return reason
        stage = reason.partition(":")[0]
        return self.stage(stage) if stage in _OF_THE_HOST else reason


class Bucket:
    """A token bucket: ``BURST`` requests at once, ``PER_SECOND`` on average."""

    def __init__(self) -> None:
        self._left, self._at = BURST, time.monotonic()

    def take(self) -> None:
        """Raises :class:`Problem` if it is empty."""
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND)
        self._at = now
        if self._left < 1:
            wait = math.ceil((1 - self._left) / PER_SECOND)
            raise Problem(429, "Too many requests; continue later.", headers={"Retry-After": str(wait)})
        self._left -= 1


class Gate:
    """Admits requests to /v1 by their ``Authorization`` header."""

    def __init__(self, tokens: Sequence[Token], *, demands_token: bool) -> None:
        self._known = [
            (_digest(token.token.get_secret_value()), Viewer(token.name, token.endpoint, token.tenant), Bucket())
            for token in tokens
        ]
        self._open = None if demands_token else (Viewer(""), Bucket())
        self._refused = Bucket()
        self._under_way = Counter[tuple[str | None, str | None]]()

    @contextmanager
    def under_way(self, viewer: Viewer) -> Iterator[None]:
        """While a request is answered. Raises :class:`Problem`, 429, if too many of the same party are."""
        party = viewer.endpoint, viewer.tenant
        if not viewer.is_operator and self._under_way[party] >= MOST_AT_ONCE:
            raise Problem(429, "Too many requests are under way; wait for an answer.", headers={"Retry-After": "1"})
        self._under_way[party] += 1
        try:
            yield
        finally:
            self._under_way[party] -= 1

    def admit(self, authorization: str | None) -> Viewer:
        """The sender. Raises :class:`Problem`: 401 if it is not known, 429 if it sends too much."""
        if self._open is not None:
            viewer, bucket = self._open
            bucket.take()
            return viewer
        scheme, _, given = (authorization or "").partition(" ")
        digest, found = _digest(given.strip()), None
        for known, viewer, bucket in self._known:  # all of them: the time taken must not show which one matched
            if hmac.compare_digest(known, digest):
                found = viewer, bucket
        if found is None or scheme.lower() != "bearer":
            self._refused.take()
            sent = scheme.lower() == "bearer" and bool(given.strip())
            what = "The relay does not know this token" if sent else "This address requires a token"
            raise Problem(
                401,
                f"{what}: send one as `Authorization: Bearer …`. api.tokens lists the known ones.",
                headers={"WWW-Authenticate": 'Bearer realm="speech-relay"'},
            )
        viewer, bucket = found
        bucket.take()
        return viewer


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
