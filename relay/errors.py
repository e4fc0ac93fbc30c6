"""The root of all errors, and its subclasses.

    RelayError
    ├── ConfigError        config.yaml, .env or the environment cannot be used as written
    ├── OutputError        standard output cannot be written
    ├── AudioError         a file is not audio that can be read
    ├── ProviderError      a speech provider cannot be built as configured
    ├── LiveKitError       the LiveKit server refuses or cannot be reached
    └── OutboxError        the log cannot be read or written
        ├── StreamTaken    another writer already listens to this track
        ├── NameTaken      another process goes by this name
        └── Fenced         this writer or dispatcher has lost what it acts on

A message is written for the operator: what is wrong, where (file, key, endpoint), what to do.
It never carries a transcript, an identity or a secret.
"""


class RelayError(Exception):
    """An error that the operator can act on. Its message is shown unchanged."""


class ConfigError(RelayError):
    """config.yaml, .env or the environment cannot be used as written."""


class OutputError(RelayError, OSError):
    """Standard output or error cannot be written, as on a full disk.

    An ``OSError`` too: ``logging`` forgives that where it reports a line that could not be written.
    """


class AudioError(RelayError):
    """A file is not audio that can be read."""


class ProviderError(RelayError):
    """A speech provider cannot be built as configured."""


class LiveKitError(RelayError):
    """The LiveKit server refuses the credentials or cannot be reached."""


class OutboxError(RelayError):
    """The log cannot be read or written."""


class StreamTaken(OutboxError):
    """Another writer already listens to this track; this one must not."""


class NameTaken(OutboxError):
    """Another process has the log open under this name."""


class Fenced(OutboxError):
    """This process has lost its lease on a stream or a lane: the requested operation was not done."""


def first_of(errors: BaseExceptionGroup[RelayError]) -> RelayError:
    """The first leaf error of nested groups: one message is what an operator can act on."""
    found = errors.exceptions[0]
    return first_of(found) if isinstance(found, BaseExceptionGroup) else found
