"""Aligned columns of text for a terminal, and times as people say them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from relay.clock import span
from relay.telemetry.printable import printable


def columns(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The rows under their heads; the last column may be as long as it likes."""
    lines = [list(heads), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(widths[n]) for n, cell in enumerate(line)).rstrip() for line in lines)


def plain(value: object) -> str:
    """The text with what a terminal would take as a command escaped; nothing for None."""
    return "" if value is None else printable(str(value))


def ago(moment: int | None, now: int) -> str:
    """How long ago, or how long until, a wall time in epoch milliseconds; nothing for None."""
    if moment is None:
        return ""
    return f"{span(now - moment)} ago" if moment <= now else f"in {span(moment - now)}"


def local(moment: int) -> str:
    """A wall time in epoch milliseconds where the operator is: ``2026-11-21 11:15:05.482``."""
    return datetime.fromtimestamp(moment / 1000, UTC).astimezone().isoformat(" ", "milliseconds")[:23]
