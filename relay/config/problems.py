"""Mistakes in the configuration, one line each: where, key, what, cure."""

from collections.abc import Sequence
from dataclasses import dataclass

from relay.errors import ConfigError
from relay.telemetry.printable import printable

KeyPath = tuple[str | int, ...]
"""The path of a value: keys of sections and positions in lists, from the top."""

MAX_MISTAKES = 100
"""Maximum mistakes listed; further ones are only mentioned."""

_LONGEST = 300
"""Maximum characters of each part of a line."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake. ``str()`` of it is the line that the operator reads."""

    where: str
    """``config.yaml:12``, ``.env:3``, ``environment`` or ``command line``."""
    key: str
    """The key, or the name of the variable; empty for the file as a whole."""
    text: str
    """The problem; the cure."""

    def __str__(self) -> str:
        return ": ".join(_one_line(part) for part in (self.where, self.key, self.text) if part)


class Mistakes(ConfigError):
    """All mistakes of a configuration; the message has one line for each."""

    def __init__(self, problems: Sequence[Mistake]) -> None:
        lines = [str(problem) for problem in problems[:MAX_MISTAKES]]
        if len(problems) > MAX_MISTAKES:
            lines.append("… and more; correct these first")
        super().__init__("\n".join(lines))
        self.problems = tuple(problems)


def _one_line(text: str) -> str:
    """Keys and some values come from the file: they may be long, and contain terminal control characters."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
    return printable(text)
