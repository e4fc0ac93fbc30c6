"""The errors of one POST, which ``HttpTransport`` translates into an outcome."""

from relay.dispatch.http.outcome import Stage
from relay.errors import RelayError


class AttemptFailed(RelayError):
    """An attempt that got no complete answer. ``stage`` says where it ended, the text says why."""

    def __init__(self, stage: Stage, text: str) -> None:
        super().__init__(text)
        self.stage: Stage = stage


class ConnectionStale(AttemptFailed):
    """The connection ended, or was out of step, before the first byte of an answer to this request."""

    def __init__(self, text: str, *, out_of_step: bool) -> None:
        super().__init__("headers", text)
        self.out_of_step = out_of_step
        """The receiver had sent bytes that belong to no answer."""


class OutOfResources(RelayError):
    """This machine has no file descriptors, memory or ports left."""
