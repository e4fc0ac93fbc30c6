"""Chooses the configured endpoint that a local receiver stands in for."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, TypeAdapter, ValidationError

from relay.cli.options import load_config
from relay.config.fields import SigningSecrets
from relay.config.files import decoded, read_file
from relay.errors import ConfigError

_DEFAULT_PORT = 8791  # as in the configuration that `init` writes
_LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True, slots=True)
class Identity:
    endpoint: str | None
    """Its name; None if a secret was given."""
    secrets: tuple[str, ...]
    """The accepted secrets; none for an endpoint that does not use ``signing: standard``."""
    port: int


def given_secrets(secret: str | None, file: Path | None) -> tuple[str, ...]:
    """The secrets of ``--secret`` or else of ``--secret-file``; none if neither was given.

    Raises :class:`ConfigError` for anything but a signing secret, and never shows it.
    """
    if file is None:
        return _checked(secret, "--secret") if secret and secret.strip() else ()
    try:
        text = decoded(read_file(file, pipes=True))
    except OSError as error:
        raise ConfigError(f"--secret-file: {file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--secret-file: {file}: {error}") from None
    return _checked(text, f"--secret-file: {file}")


def receiver_identity(
    config: Path, endpoint: str | None, secrets: tuple[str, ...], *, with_secret: bool = False
) -> Identity:
    """The secrets and port to listen with: those given, or of the named endpoint, or of the first one.

    ``with_secret``: only an endpoint with ``signing: standard`` is accepted. Raises :class:`ConfigError` if the
    configuration has no such endpoint.
    """
    if secrets:
        return Identity(None, secrets, _DEFAULT_PORT)
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
    port = url.port if is_local(url.host) and url.port else _DEFAULT_PORT
    return Identity(candidates[0].name, candidates[0].secrets, port)


def is_local(host: str | None) -> bool:
    """Whether a URL's host is this machine."""
    return host in _LOCAL


def _checked(text: str, where: str) -> tuple[str, ...]:
    try:
        secrets = TypeAdapter[tuple[SecretStr, ...]](SigningSecrets).validate_python(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{where}: {found['ctx'].get('error', 'is empty')}") from None
    return tuple(secret.get_secret_value() for secret in secrets)
