"""Outputs of ``listen`` for each arrival: a screen line, a JSON line, a recorded line."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from relay.cli.output.formatting import detail_of, plain, write_line
from relay.cli.receiver import Arrival
from relay.clock import rfc3339
from relay.errors import ConfigError
from relay.private_files import open_private
from relay.telemetry.printable import ascii_json, here

_COLOURS = {"transcript": "bold", "utterance": "green", "speech": "cyan", "stream": "magenta", "source": "yellow"}


_WIDE = 100
"""Terminal width from which the parts of a line are aligned."""


class ArrivalScreen:
    """Time, room, participant, type, and the event's detail."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        wide = self._console.width >= _WIDE
        self._name_width, self._type_width = (16, 22) if wide else (0, 0)

    def __call__(self, arrival: Arrival) -> None:
        if not arrival.verified:
            self._console.print(Text.assemble(_clock(arrival), "  ", (f"REFUSED: {plain(arrival.error)}", "bold red")))
            return
        event = arrival.event
        kind = plain(event.get("type", "?"))
        line = Text.assemble(
            (_clock(arrival), "dim"),
            f"  {plain(_at(event, 'room', 'name')):<{self._name_width}} "
            f"{plain(_at(event, 'participant', 'identity')):<{self._name_width}} ",
            (f"{kind:<{self._type_width}}", _COLOURS.get(kind.partition(".")[0], "blue")),
            " ",
            _detail(event),
        )
        self._console.print(line, soft_wrap=True)


class ArrivalLines:
    """``{"received_at", "verified", "error", "headers", "event"}`` on standard output.

    ``headers`` are those of the webhook itself, such as ``webhook-id`` and ``relay-previous-sequence``.
    """

    def __call__(self, arrival: Arrival) -> None:
        line = {
            "received_at": rfc3339(_instant(arrival)),
            "verified": arrival.verified,
            "error": arrival.error,
            "headers": {name: value for name, value in arrival.headers.items() if _is_kept(name)},
            "event": arrival.event,
        }
        write_line(line)


class Totals:
    """Counts the arrivals."""

    def __init__(self) -> None:
        self._requests = self._refused = 0
        self._ids: set[str] = set()
        self._repeated = 0

    def __call__(self, arrival: Arrival) -> None:
        self._requests += 1
        if not arrival.verified:
            self._refused += 1
            return
        id_ = arrival.headers.get("webhook-id", "")
        self._repeated += id_ in self._ids
        self._ids.add(id_)

    def __str__(self) -> str:
        verified = self._requests - self._refused
        return (
            f"{self._requests} request{'' if self._requests == 1 else 's'}: {verified} taken, {self._refused} refused; "
            f"{len(self._ids)} different event{'' if len(self._ids) == 1 else 's'}, {self._repeated} repeated"
        )


class ArrivalRecorder:
    """``{"received_ns", "verified", "headers", "body"}``, the body as the text that was signed."""

    def __init__(self, path: Path) -> None:
        try:
            opened = open_private(path, os.O_WRONLY | os.O_APPEND)  # it will contain what people said
        except OSError as error:
            raise ConfigError(f"--record {path} cannot be written: {error.strerror}") from None
        self._file = os.fdopen(opened, "a", encoding="utf-8", buffering=1)

    def __call__(self, arrival: Arrival) -> None:
        line = {
            "received_ns": arrival.received_ns,
            "verified": arrival.verified,
            "headers": dict(arrival.headers),
            "body": arrival.body.decode("utf-8", "replace"),
        }
        self._file.write(ascii_json(line) + "\n")


def _is_kept(header: str) -> bool:
    return header.startswith(("webhook-", "relay-")) and header != "webhook-signature"


def _detail(event: dict[str, Any]) -> str:
    data = event.get("data")
    return plain(detail_of(data)) if isinstance(data, dict) else ""


def _at(event: dict[str, Any], part: str, key: str) -> object:
    node = event.get(part)
    return node.get(key) or "-" if isinstance(node, dict) else "-"


def _instant(arrival: Arrival) -> datetime:
    return datetime.fromtimestamp(arrival.received_ns / 1e9, UTC)


def _clock(arrival: Arrival) -> str:
    return f"{here(_instant(arrival)):%H:%M:%S.%f}"[:-3]
