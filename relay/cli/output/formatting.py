"""What the operator commands print: aligned columns for a terminal, ``--json`` for programs.

In JSON, times are ISO 8601 in UTC; docs/reference/commands.md shows each shape.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from relay.clock import instant, rfc3339, span
from relay.outbox.operator.views import AttemptView, DeliveryView, EndpointView, EventView
from relay.telemetry.printable import ascii_json, here, printable

_LAST = 20
"""Minimum width of the last column beside the others; the rest of it may wrap."""


def columns(heads: Sequence[str], rows: Iterable[Sequence[object]], *, width: int | None = None) -> str:
    """The rows under their heads; the last column may have any length.

    With a ``width``, by default the terminal's, rows that do not fit are shown cell by cell.
    """
    width = terminal_width() if width is None else width
    lines = [list(heads), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(heads))]
    if width and sum(widths[:-1]) + 2 * (len(heads) - 1) + min(widths[-1], _LAST) > width:
        return "\n".join(_stacked(heads, line, width) for line in lines[1:])
    return "\n".join("  ".join(cell.ljust(widths[n]) for n, cell in enumerate(line)).rstrip() for line in lines)


def wrapped(line: str, *, indent: int) -> str:
    """The line, wrapped at blanks to the width of the terminal, if any."""
    width = terminal_width()
    if not width:
        return line
    lines = textwrap.wrap(
        line, max(width, 20), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def terminal_width() -> int:
    """Columns of the terminal; 0 (unlimited) if the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def _stacked(heads: Sequence[str], row: Sequence[str], width: int) -> str:
    """The first cell, and below it each other non-empty one, after its head."""
    pad = max(map(len, heads[1:]), default=0)
    lines = [row[0]]
    for head, cell in zip(heads[1:], row[1:], strict=True):
        if cell:
            indent = " " * (pad + 4)
            room = max(20, width - len(indent))
            lines += textwrap.wrap(
                cell, room + len(indent), initial_indent=f"  {head.lower():<{pad}}  ", subsequent_indent=indent
            )
    return "\n".join(lines)


def plain(value: object) -> str:
    """The text with terminal control characters escaped; empty for None."""
    return "" if value is None else printable(str(value))


def detail_of(data: Mapping[str, Any]) -> object:
    """Of an event's ``data`` the text of a transcript, else its reason, outcome or state."""
    return next((data[key] for key in ("text", "reason", "outcome", "new_state") if data.get(key)), "")


def ago(moment: int | None, now: int) -> str:
    """How long ago, or how long until, a wall time in epoch milliseconds; empty for None."""
    if moment is None:
        return ""
    return f"{span(now - moment)} ago" if moment <= now else f"in {span(moment - now)}"


def local(moment: int) -> str:
    """A wall time in epoch milliseconds in the local zone: ``2026-11-21 11:15:05.482``."""
    return here(datetime.fromtimestamp(moment / 1000, UTC)).isoformat(" ", "milliseconds")[:23]


def write(document: object) -> None:
    """One JSON document, indented, in ASCII."""
    sys.stdout.write(ascii_json(document, indent=2) + "\n")


def write_line(document: object) -> None:
    """One JSON document on one line, flushed at once."""
    sys.stdout.write(ascii_json(document) + "\n")
    sys.stdout.flush()


def endpoint_shape(view: EndpointView, state: str) -> dict[str, Any]:
    return {
        "name": view.state.name,
        "state": state,
        "disabled_because": view.state.disabled_because,
        "disabled_at": iso(view.state.disabled_at),
        "failing_since": iso(view.state.failing_since),
        "last_success": iso(view.state.succeeded_at),
        "last_failure": iso(view.state.failed_at),
        "last_error": view.state.last_error,
        "resting_until": iso(view.state.resting_until) if state == "resting" else None,
        "pending": view.pending,
        "oldest_pending": iso(view.oldest_pending),
        "retrying": view.retrying,
        "parked": view.parked,
        "dead": view.dead,
        "resending": view.resending,
    }


def delivery_shape(view: DeliveryView) -> dict[str, Any]:
    return {
        "endpoint": view.endpoint,
        "event_id": view.event_id,
        "state": view.state.value,
        "since": iso(view.at),
        "type": view.type,
        "room": view.room,
        "participant": view.participant,
        "stream_id": view.stream_id,
        "sequence": view.sequence,
        "attempts": view.attempts,
        "next_attempt": iso(view.next_at),
        "reason": view.reason,
        "last_failure": iso(view.failed_at),
    }


def attempt_shape(view: AttemptView) -> dict[str, Any]:
    return {
        "at": iso(view.at),
        "endpoint": view.endpoint,
        "event_id": view.event_id,
        "type": view.type,
        "number": view.number,
        "stage": view.stage,
        "status": view.status,
        "elapsed_ms": round(view.elapsed_ms, 1),
        "answer": view.answer,
    }


def event_shape(view: EventView) -> dict[str, Any]:
    """``event`` is null if the body is gone: an expired interim, or a purged event."""
    return {
        "id": view.id,
        "type": view.type,
        "emitted_at": iso(view.emitted_at),
        "room": view.room,
        "participant": view.participant,
        "stream_id": view.stream_id,
        "sequence": view.sequence,
        "event": json.loads(view.body) if view.body else None,
    }


def iso(moment: int | None) -> str | None:
    """A wall time in epoch milliseconds as ``2026-11-21T10:15:05.482Z``."""
    return None if moment is None else rfc3339(instant(moment))
