"""Text for a log or a terminal, without characters that a terminal acts on or that forge a line.

Names of rooms and participants, transcripts and answers of receivers are chosen by others: a line feed in one of them
would begin a line of its own, an escape sequence would give the terminal commands.
"""

import json
from typing import Any
from unicodedata import category


def printable(text: str, *, keep: str = "") -> str:
    """Escape every character that does not print: controls, DEL, direction overrides, line separators, surrogates.

    Other spaces than the ASCII one become it. Characters in ``keep`` stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def ascii_json(value: Any, *, indent: int | None = None) -> str:
    """JSON in printable ASCII only. What is not JSON is written as its text."""
    # DEL is the one ASCII control character that JSON does not escape
    return json.dumps(value, indent=indent, default=str).replace("\x7f", "\\u007f")


def _escaped(character: str) -> str:
    if category(character) == "Zs":
        return " "
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
