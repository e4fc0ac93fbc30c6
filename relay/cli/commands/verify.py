"""``speech-relay verify``: checks one signature by hand, for developers of a receiver."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from standardwebhooks import Webhook

from relay.cli.identity import given_secrets, receiver_identity
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, SecretFileOption, SecretOption
from relay.cli.output.formatting import write
from relay.cli.receiver import verification_error
from relay.errors import ConfigError

_STANDARD_INPUT = Path("-")


def command(
    webhook_id: Annotated[str, typer.Option("--id", help="The webhook-id header.")],
    timestamp: Annotated[str, typer.Option(help="The webhook-timestamp header.")],
    signature: Annotated[str, typer.Option(help="The webhook-signature header.")],
    body: Annotated[
        Path, typer.Argument(help="File with the body, byte for byte; - for standard input.")
    ] = _STANDARD_INPUT,
    config: ConfigOption = DEFAULT_CONFIG,
    endpoint: Annotated[
        str | None,
        typer.Option(help="The endpoint it was sent to; without it, the first that has signing: standard."),
    ] = None,
    secret: SecretOption = None,
    secret_file: SecretFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a signature holds. Exit code 1 when it does not.

    A timestamp further than five minutes from now does not hold: a recorded webhook cannot be sent again.
    """
    identity = receiver_identity(config, endpoint, given_secrets(secret, secret_file), with_secret=True)
    headers = {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    error = verification_error([Webhook(each) for each in identity.secrets], _content(body), headers)
    if as_json:
        write({"holds": error is None, "endpoint": identity.endpoint, "reason": error})
    else:
        whose = f" with the secret of {identity.endpoint}" if identity.endpoint else ""
        typer.echo(f"does not hold{whose}: {error}" if error else f"holds{whose}")
    raise typer.Exit(1 if error else 0)


def _content(body: Path) -> bytes:
    # By hand: typer checks whether a file of that name exists, "-" included.

    if body == _STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        return body.read_bytes()
    except OSError as error:
        raise ConfigError(f"{body} cannot be read: {error.strerror}") from None
