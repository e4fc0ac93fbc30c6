"""``speech-relay listen`` and ``verify``: for developers of a receiver."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from standardwebhooks import Webhook

from relay.cli.identity import given_secrets, receiver_identity
from relay.cli.interrupt import calling_on_signal
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, SecretFileOption, SecretOption
from relay.cli.output.formatting import write
from relay.cli.output.listen_output import ArrivalLines, ArrivalRecorder, ArrivalScreen, Totals
from relay.cli.receiver import Arrival, VerifyingReceiver, verification_error
from relay.errors import ConfigError


def listen(
    config: ConfigOption = DEFAULT_CONFIG,
    endpoint: Annotated[
        str | None, typer.Option(help="Stand in for this endpoint of the configuration; without it, the first.")
    ] = None,
    secret: SecretOption = None,
    secret_file: SecretFileOption = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Without it, the port of the endpoint's URL.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    record: Annotated[Path | None, typer.Option(help="Append each request to this file, one JSON per line.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Receive webhooks, verify each signature and show each event. On Ctrl-C it ends with totals on standard error."""
    identity = receiver_identity(config, endpoint, given_secrets(secret, secret_file))
    show = ArrivalLines() if as_json else ArrivalScreen()
    recorder = ArrivalRecorder(record) if record else None

    totals = Totals()

    def on_event(arrival: Arrival) -> None:
        totals(arrival)
        if recorder:
            recorder(arrival)
        show(arrival)

    receiver = VerifyingReceiver(identity.secrets, on_event, host=host, port=identity.port if port is None else port)
    asyncio.run(_serve(receiver, bool(identity.secrets)))
    typer.echo(str(totals), err=True)


async def _serve(receiver: VerifyingReceiver, signed: bool) -> None:
    stop = asyncio.Event()
    with calling_on_signal(stop.set):
        await receiver.start()
        how = "verifying signatures" if signed else "unsigned requests are taken as they are"
        typer.echo(f"Listening on {receiver.url} ({how}); Ctrl-C ends.", err=True)
        await stop.wait()
        await receiver.stop()


_STANDARD_INPUT = Path("-")


def verify(
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
