"""Text and times for a log or a terminal: no control characters, no forged lines.

Other parties choose the names of rooms and participants, transcripts and receivers' answers: a line feed in one of them
would start a new line, an escape sequence would control the terminal.
"""

import json
from datetime import UTC, datetime
from typing import Any
from unicodedata import category


def printable(text: str, *, keep: str = "") -> str:
    """Escape every character that does not print: controls, DEL, direction overrides, line separators, surrogates.

    Spaces other than the ASCII one are replaced by it. Characters in ``keep`` stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def ascii_json(value: Any, *, indent: int | None = None) -> str:
    """JSON in printable ASCII only. A value that is not JSON is written as its text."""
    # DEL is the one ASCII control character that JSON does not escape
    return json.dumps(value, indent=indent, default=str).replace("\x7f", "\\u007f")


def here(moment: datetime) -> datetime:
    """The moment in this machine's zone; in UTC if that is a day or more away, as with ``TZ=UTC+99``."""
    try:
        return moment.astimezone()
    except ValueError:
        return moment.astimezone(UTC)


def _escaped(character: str) -> str:
    if category(character) == "Zs":
        return " "
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
