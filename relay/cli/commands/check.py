"""``speech-relay check``: what the relay will do, and whether its requirements are met."""

import asyncio
import logging
import os
import textwrap
import warnings
from typing import Annotated, cast, get_args

import typer
from rich.console import Console
from rich.text import Text

from relay.cli.options import DEFAULT_CONFIG, ConfigOption, ConfigSource, JsonOption
from relay.cli.output.formatting import plain, terminal_width, wrapped, write
from relay.cli.output.plan import plan, sentences
from relay.outbox.log.processes import Role

_DETAIL = 24
"""Columns that the detail of a finding needs beside its subject and status."""


def check(
    config: ConfigOption = DEFAULT_CONFIG,
    offline: Annotated[bool, typer.Option("--offline", help="Skip everything that needs a network.")] = False,
    role: Annotated[str, typer.Option("--role", help="What will run: run, worker or dispatch.")] = "run",
    as_json: JsonOption = False,
) -> None:
    """Say what the configuration will do, resolve and connect to its endpoints, try LiveKit's and the STT's keys.

    Nothing is posted and nothing is created. Exit code 1 when something failed, which a warning has not, and 2
    for a mistake in the configuration.
    """
    # Not above: it loads LiveKit, which takes two seconds that `check --help` need not wait.
    from relay.cli.probes import probe
    from relay.cli.secret_probes import probe_files

    # Libraries log a failed attempt for their own authors: the findings report it to the operator.
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    part = cast("Role", role)
    if part not in get_args(Role):
        raise typer.BadParameter(f"{role!r} is none of {', '.join(get_args(Role))}", param_hint="--role")
    source = ConfigSource(config)
    loaded = source.load()
    if not as_json:
        typer.echo("\n".join(wrapped(sentence, indent=2) for sentence in sentences(loaded, part)) + "\n")
    findings = asyncio.run(probe(loaded, os.environ, offline=offline, role=part))
    findings += probe_files(source.files, loaded)
    failed = any(finding.status == "failed" for finding in findings)
    if as_json:
        checks = [{"subject": f.subject, "status": f.status, "detail": f.detail} for f in findings]
        write({"ok": not failed, "plan": plan(loaded), "checks": checks})
    else:
        _show([(f.subject, f.status, f.detail) for f in findings])
    raise typer.Exit(1 if failed else 0)


def _show(rows: list[tuple[str, str, str]]) -> None:
    """One line a finding in a pipe or a file; on a terminal the detail is wrapped, and below where it has no room."""
    colours = {"ok": "green", "warning": "yellow", "failed": "bold red", "not tried": "yellow"}
    rows = [(plain(subject), status, plain(detail)) for subject, status, detail in rows]
    subjects, statuses = (max(len(row[n]) for row in rows) for n in (0, 1))
    console, width, indent = Console(highlight=False), terminal_width(), subjects + statuses + 4
    below = 0 < width < indent + _DETAIL
    for subject, status, detail in rows:
        head = Text.assemble(f"{subject:<{subjects}}  ", (status, colours[status]))
        room = max(_DETAIL, width - (4 if below else indent))
        lines = textwrap.wrap(detail, room, break_on_hyphens=False) if width else [detail]
        head.append("\n" + " " * 4 if below else " " * (statuses - len(status) + 2))
        head.append(("\n" + " " * (4 if below else indent)).join(lines))
        console.print(head, soft_wrap=True)
