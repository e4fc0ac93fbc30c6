"""Which endpoint of the configuration a local receiver stands in for."""

from dataclasses import dataclass
from pathlib import Path

from relay.cli.options import load_config
from relay.config.fields import SigningSecret
from relay.errors import ConfigError

_DEFAULT_PORT = 8791  # as in the configuration that `init` writes
_LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True, slots=True)
class Identity:
    secrets: tuple[str, ...]
    """Any of them may have signed; none for an endpoint that asks for ``signing: none``."""
    port: int


def receiver_identity(config: Path, endpoint: str | None, secret: str | None) -> Identity:
    """The secrets and port to listen with. Raises :class:`ConfigError` where the configuration has no such endpoint."""
    if secret:
        return Identity((_checked(secret),), _DEFAULT_PORT)
    endpoints = {each.name: each for each in load_config(config).endpoints}
    if not endpoints:
        raise ConfigError(f"{config}: there is no endpoint to stand in for; add one, or give --secret")
    name = endpoint or next(iter(endpoints))
    if name not in endpoints:
        raise ConfigError(f"--endpoint {name}: {config} has no such endpoint; it has {', '.join(endpoints)}")
    url = endpoints[name].url
    return Identity(endpoints[name].secrets, url.port if url.host in _LOCAL and url.port else _DEFAULT_PORT)


def _checked(secret: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter[SigningSecret](SigningSecret).validate_python(secret).get_secret_value()
    except ValidationError as error:
        raise ConfigError(f"--secret: {error.errors()[0]['ctx']['error']}") from None
