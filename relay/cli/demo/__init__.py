"""``speech-relay demo``: recorded speech through the whole relay, on this machine alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from relay.cli.demo.run import Forward


def command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="WAV files, each one speaker; without any, the speech that ships with moonshine-voice."),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Send the events to this URL too.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Feed the speech faster than it plays.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Real voice detection and recognition, a real log, real signed webhooks. Exits 1 if anything did not hold."""
    import asyncio
    import logging

    from rich.console import Console
    from rich.text import Text

    from relay.cli.demo.run import run_demo, speakers
    from relay.cli.demo.screen import JsonLines, Screen
    from relay.cli.interrupt import cancelled_on_signal
    from relay.cli.output.formatting import plain
    from relay.dispatch.gc_tuning import collect_rarely

    logging.disable(logging.WARNING)  # what it would warn of, such as the 503s, is shown anyway
    chosen = speakers(files or [])
    collect_rarely()
    console = Console(stderr=as_json, highlight=False)
    forward = _forward(to, console)
    if as_json:
        lines = JsonLines()
        outcome = asyncio.run(cancelled_on_signal(run_demo(chosen, lines, fast=fast, forward=forward)))
        lines.summary(outcome.report)
    else:
        heard = plain(", ".join(speaker.file.name for speaker in chosen))
        console.print(Text.assemble(("speech-relay", "bold"), f" hears {heard}\n"))
        with Screen(console) as screen:
            outcome = asyncio.run(cancelled_on_signal(run_demo(chosen, screen, fast=fast, forward=forward)))
        if outcome.example is not None:
            screen.webhook(outcome.example)
        screen.summary(outcome.report)
        screen.next_steps()
    if outcome.report.faults:
        raise typer.Exit(1)


def _forward(url: str | None, console: "Console") -> "Forward | None":
    if url is None:
        return None
    from pydantic import ValidationError

    from relay.cli.demo.run import Forward
    from relay.cli.output.formatting import plain
    from relay.config.endpoint import Endpoint
    from relay.dispatch.signing import new_secret

    try:
        Endpoint(name="yours", url=url, signing="none")
    except ValidationError:
        raise typer.BadParameter("must be an http:// or https:// URL", param_hint="--to") from None
    secret = new_secret()
    console.print(f"also sent to {plain(url)}, signed with {secret}", soft_wrap=True, markup=False)
    return Forward(url, secret)
