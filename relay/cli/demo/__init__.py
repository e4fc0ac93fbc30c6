"""``speech-relay demo``: recorded speech through the whole relay, on this machine alone."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from relay.cli.demo.run import Forward


def demo(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="WAV files, each one speaker; without any, the speech that ships with moonshine-voice."),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Send the events to this URL too.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Feed the speech faster than it plays.")] = False,
    open_: Annotated[
        bool, typer.Option("--open", help="Show it on the live page too, in the browser, until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Real voice detection and recognition, a real log, real signed webhooks. Exits 1 if anything did not hold."""
    import asyncio
    import logging

    from rich.console import Console
    from rich.text import Text

    from relay.app.delivery import collect_rarely
    from relay.cli.demo.run import Outcome, run_demo, speakers
    from relay.cli.demo.screen import JsonLines, Screen
    from relay.cli.interrupt import cancelled_on_signal, until_signal
    from relay.cli.output.formatting import plain

    logging.disable(logging.WARNING)  # what it would warn of, such as the 503s, is shown anyway
    chosen = speakers(files or [])
    collect_rarely()
    console = Console(stderr=as_json, highlight=False)
    forward = _forward(to, console)

    async def perform(audience: JsonLines | Screen, tell: Callable[[Outcome], None]) -> Outcome:
        page = _page(console) if open_ else None
        async with run_demo(chosen, audience, fast=fast, forward=forward, page=page) as outcome:
            tell(outcome)
            if open_:
                console.print("The page stays until Ctrl-C.")
                await until_signal()
        return outcome

    if as_json:
        lines = JsonLines()
        outcome = asyncio.run(cancelled_on_signal(perform(lines, lambda outcome: lines.summary(outcome.report))))
    else:
        heard = plain(", ".join(speaker.file.name for speaker in chosen))
        console.print(Text.assemble(("speech-relay", "bold"), f" hears {heard}\n"))
        with Screen(console) as screen:
            outcome = asyncio.run(cancelled_on_signal(perform(screen, screen.conclude)))
    if outcome.report.faults:
        raise typer.Exit(1)


def _page(console: "Console") -> "Callable[[str], None]":
    from relay.cli.commands.ui import open_browser

    def show(url: str) -> None:
        where = "in the browser" if open_browser(url) else "open it in a browser"
        console.print(f"the live page: {url} ({where})", soft_wrap=True, markup=False)

    return show


def _forward(url: str | None, console: "Console") -> "Forward | None":
    if url is None:
        return None
    from pydantic import ValidationError

    from relay.cli.demo.run import Forward
    from relay.cli.output.formatting import plain
    from relay.config.endpoint import Endpoint
    from relay.config.problems import in_words
    from relay.dispatch.signing import new_secret

    try:
        Endpoint(name="yours", url=url, signing="none")
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        told = in_words(wrong["type"], wrong.get("ctx", {}), wrong["msg"])
        raise typer.BadParameter(told, param_hint="--to") from None
    secret = new_secret()
    console.print(f"also sent to {plain(url)}, signed with {secret}", soft_wrap=True, markup=False)
    return Forward(url, secret)
