"""``speech-relay verify``: one signature by hand, for whoever builds a receiver."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.options import DEFAULT_CONFIG, ConfigOption


def command(
    webhook_id: Annotated[str, typer.Option("--id", help="The webhook-id header.")],
    timestamp: Annotated[str, typer.Option(help="The webhook-timestamp header.")],
    signature: Annotated[str, typer.Option(help="The webhook-signature header.")],
    body: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            allow_dash=True,
            help="File with the body, byte for byte; - for standard input.",
        ),
    ] = Path("-"),
    config: ConfigOption = DEFAULT_CONFIG,
    endpoint: Annotated[str | None, typer.Option(help="The endpoint it was sent to; without it, the first.")] = None,
    secret: Annotated[str | None, typer.Option(envvar="WEBHOOK_SECRET", help="The secret, whsec_….")] = None,
) -> None:
    """Say whether a signature holds. Exit code 1 when it does not.

    A timestamp further than five minutes from now does not hold: a recorded webhook cannot be sent again.
    """
    from standardwebhooks import Webhook

    from relay.cli.identity import receiver_identity
    from relay.cli.receiver import verification_error
    from relay.errors import ConfigError

    content = sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    secrets = receiver_identity(config, endpoint, secret).secrets
    if not secrets:
        raise ConfigError("this endpoint has no signing: standard, so there is nothing to verify with")
    headers = {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    error = verification_error([Webhook(each) for each in secrets], content, headers)
    typer.echo(f"does not hold: {error}" if error else "holds")
    raise typer.Exit(1 if error else 0)
