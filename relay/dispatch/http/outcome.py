"""The outcome of one POST as a value."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Stage = Literal["dns", "egress", "connect", "tls", "write", "headers", "status", "timeout"]
"""Where an attempt failed.

dns: the name does not resolve; egress: it resolves to an address that the relay never dials; connect: no connection
(refused, unreachable, or none within the connect timeout); tls: the certificate, or the handshake, or none in time;
write: the request could not be sent; headers: no complete head of an HTTP answer came back; status: the answer was not
2xx; timeout: no complete head came within the endpoint's ``timeout``.
"""


class Delivered(NamedTuple):
    """The endpoint accepted it: the head of a 2xx answer came within the deadline."""

    status: int
    elapsed_ms: float
    answer: bytes | None = None
    """The first bytes of the answer's content, if they are to be kept."""

    @property
    def stage(self) -> Literal["ok"]:
        return "ok"

    @property
    def reason(self) -> str:
        """Why it was not accepted: empty."""
        return ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The endpoint did not accept it, or its acceptance is unknown."""

    stage: Stage
    elapsed_ms: float
    status: int | None = None
    """The HTTP status; None if none was received."""
    retry_after: str | None = None
    """The answer's ``Retry-After`` as received: seconds, or an HTTP date."""
    detail: str = ""
    """A short description for the operator, without URL, body or secret."""
    answer: bytes | None = None
    """As of a delivered one; None if no answer came."""

    @property
    def reason(self) -> str:
        """Stage and detail in one line, as dead letters and logs show it."""
        what = f"status {self.status}" if self.stage == "status" else self.stage
        return f"{what}: {self.detail}" if self.detail else what


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure on our side, before the endpoint could affect it: no file descriptors left, a bug.

    It never counts against the endpoint.
    """

    elapsed_ms: float
    detail: str

    @property
    def stage(self) -> Literal["fault"]:
        return "fault"

    @property
    def status(self) -> None:
        """No answer was received."""
        return None

    @property
    def reason(self) -> str:
        return f"our own fault: {self.detail}"


Outcome = Delivered | Failed | Fault


class Answer(NamedTuple):
    """A complete head. Its status decides the request, whatever follows."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]

    @property
    def retry_after(self) -> str | None:
        """The ``Retry-After`` header as received."""
        values = [value for name, value in self.headers if name.lower() == b"retry-after"]
        return b", ".join(values).decode("latin-1") if values else None
