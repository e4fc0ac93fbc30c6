"""Aligned columns of text for a terminal, and readable times."""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from relay.clock import span
from relay.telemetry.printable import printable

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


def ago(moment: int | None, now: int) -> str:
    """How long ago, or how long until, a wall time in epoch milliseconds; empty for None."""
    if moment is None:
        return ""
    return f"{span(now - moment)} ago" if moment <= now else f"in {span(moment - now)}"


def local(moment: int) -> str:
    """A wall time in epoch milliseconds in the local zone: ``2026-11-21 11:15:05.482``."""
    return datetime.fromtimestamp(moment / 1000, UTC).astimezone().isoformat(" ", "milliseconds")[:23]
