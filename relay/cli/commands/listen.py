"""``speech-relay listen``: shows webhooks on this machine as they arrive, verified."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.identity import given_secrets, receiver_identity
from relay.cli.interrupt import calling_on_signal
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, SecretFileOption, SecretOption
from relay.cli.output.listen_output import ArrivalLines, ArrivalRecorder, ArrivalScreen, Totals
from relay.cli.receiver import Arrival, VerifyingReceiver


def command(
    config: ConfigOption = DEFAULT_CONFIG,
    endpoint: Annotated[
        str | None, typer.Option(help="Be this endpoint of the configuration; without it, the first.")
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
