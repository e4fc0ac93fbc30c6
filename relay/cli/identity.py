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
    endpoint: str | None
    """Its name; None for whoever gave a secret."""
    secrets: tuple[str, ...]
    """Any of them may have signed; none for an endpoint that is not signed to with ``signing: standard``."""
    port: int


def receiver_identity(config: Path, endpoint: str | None, secret: str | None, *, with_secret: bool = False) -> Identity:
    """The secrets and port to listen with: of the endpoint of this name, or of the first one.

    ``with_secret``: only one with ``signing: standard`` will do. Raises :class:`ConfigError` where the configuration
    has no such endpoint.
    """
    if secret:
        return Identity(None, (_checked(secret),), _DEFAULT_PORT)
    endpoints = {each.name: each for each in load_config(config).endpoints}
    if not endpoints:
        raise ConfigError(f"{config}: there is no endpoint to stand in for; add one, or give --secret")
    if endpoint is not None and endpoint not in endpoints:
        raise ConfigError(f"--endpoint {endpoint}: {config} has no such endpoint; it has {', '.join(endpoints)}")
    candidates = [endpoints[endpoint]] if endpoint else list(endpoints.values())
    if with_secret:
        candidates = [each for each in candidates if each.signing == "standard"]
    if not candidates:
        which = f"endpoint {endpoint} does not have" if endpoint else f"{config}: no endpoint has"
        raise ConfigError(f"{which} signing: standard, so there is no secret to verify with; give --secret whsec_…")
    url = candidates[0].url
    port = url.port if url.host in _LOCAL and url.port else _DEFAULT_PORT
    return Identity(candidates[0].name, candidates[0].secrets, port)


def _checked(secret: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter[SigningSecret](SigningSecret).validate_python(secret).get_secret_value()
    except ValidationError as error:
        raise ConfigError(f"--secret: {error.errors()[0]['ctx']['error']}") from None
