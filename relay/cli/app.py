"""The command line. A command's module is imported only when it runs: ``--help`` is fast."""

from functools import partial
from importlib import import_module
from typing import Any

import typer

from relay.cli.group import Group

COMMANDS = {
    "demo": "Bundled speech through the whole relay, on this machine alone.",
    "init": "Write a commented config.yaml, and endpoint secrets into .env.",
    "check": "Say what the configuration will do, and try what it names.",
    "run": "Listen to rooms and deliver what is heard.",
    "worker": "Only listen to rooms: one of a fleet.",
    "dispatch": "Only deliver: one of a fleet.",
    "migrate": "Create or upgrade the log's tables.",
    "status": "Is a relay running, what does it hear, how are its endpoints.",
    "ui": "The live page on a log: rooms, deliveries, utterances.",
    "listen": "A local receiver that verifies signatures and shows each event.",
    "verify": "Verify the signature of one webhook by hand.",
    "endpoints": "How each endpoint is doing; disable, enable, ping, remove.",
    "deliveries": "What is not delivered; show, retry, discard, resend, tail.",
    "events": "What the log holds; show, tail.",
    "schema": "The events as JSON Schema, OpenAPI and AsyncAPI.",
    "trigger": "Send a sample of any type to an endpoint.",
    "outbox": "Copy the log to another database.",
    "purge": "Remove a participant's or a room's data from the log.",
}
"""Each is the function of its name, or the ``group`` of commands, of the module with its name in ``commands/``."""

REMOTE = ("status", "endpoints", "deliveries", "events")
"""Commands that can ask a remote relay."""

_BESIDE = {"worker": "run", "dispatch": "run", "migrate": "outbox", "purge": "outbox", "verify": "listen"}
"""Commands that are in the module of another one."""


class _Lazy(Group):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # what help, completion and "did you mean" need of a command: its name and one line
        self.commands = {name: typer.core.TyperCommand(name, help=line) for name, line in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, to run it."""
        name, stub, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name and stub else None, rest


def _load(name: str) -> Any:
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    folder = "relay.cli" if name == "demo" else "relay.cli.commands"
    module = import_module(f"{folder}.{_BESIDE.get(name, name)}")
    if hasattr(module, "group") and name not in _BESIDE:
        single.add_typer(module.group, name=name, help=COMMANDS[name])
        return typer.main.get_group(single).commands[name]
    single.command(name, help=COMMANDS[name])(getattr(module, name))
    return typer.main.get_command(single)


# Plain help: the rich kind takes three times as long to import as everything else here.
app = typer.Typer(
    cls=_Lazy,
    help="Who speaks in LiveKit rooms, when, and what was said: as typed, signed, ordered, durable webhooks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from relay import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
    api: str | None = typer.Option(
        None,
        "--api",
        metavar="URL",
        help="Ask the remote relay whose HTTP API is at this URL, with the token in SPEECH_RELAY_API_TOKEN.",
    ),
) -> None:
    if api is not None:
        from relay.cli.options import API

        context.call_on_close(partial(API.reset, API.set(api)))
        if context.invoked_subcommand not in REMOTE:
            raise typer.BadParameter(
                f"{context.invoked_subcommand} works on this machine alone; {', '.join(REMOTE)} can ask a remote relay",
                param_hint="--api",
            )
