"""``speech-relay check``: what the relay will do, and whether its requirements are met."""

from typing import Annotated

import typer

from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption


def command(
    config: ConfigOption = DEFAULT_CONFIG,
    offline: Annotated[bool, typer.Option("--offline", help="Try nothing that needs a network.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what the configuration will do, resolve and connect to its endpoints, try LiveKit's and the STT's keys.

    Nothing is posted and nothing is created. Exit code 1 when something failed, which a warning has not, and 2
    for a mistake in the configuration.
    """
    import asyncio
    import logging
    import os
    import warnings

    from relay.cli.options import ConfigSource
    from relay.cli.output.columns import wrapped
    from relay.cli.output.plan import plan, sentences
    from relay.cli.output.shapes import write
    from relay.cli.probes.all import probe
    from relay.cli.probes.files import probe_files

    # Libraries log a failed attempt for their own authors: the findings report it to the operator.
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    source = ConfigSource(config)
    loaded = source.load()
    if not as_json:
        typer.echo("\n".join(wrapped(sentence, indent=2) for sentence in sentences(loaded)) + "\n")
    findings = asyncio.run(probe(loaded, os.environ, offline=offline))
    findings += probe_files(source.files, loaded)
    failed = any(finding.status == "failed" for finding in findings)
    if as_json:
        checks = [{"subject": f.subject, "status": f.status, "detail": f.detail} for f in findings]
        write({"ok": not failed, "plan": plan(loaded), "checks": checks})
    else:
        _show([(f.subject, f.status, f.detail) for f in findings])
    raise typer.Exit(1 if failed else 0)


def _show(rows: list[tuple[str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from relay.cli.output.columns import plain

    colours = {"ok": "green", "warning": "yellow", "failed": "bold red", "not tried": "yellow"}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for subject, status, detail in rows:
        table.add_row(Text(plain(subject)), Text(status, style=colours[status]), Text(plain(detail)))
    Console(highlight=False).print(table)
