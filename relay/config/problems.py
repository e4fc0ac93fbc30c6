"""What is wrong with the configuration, one line per mistake: where, key, what, cure."""

from collections.abc import Sequence
from dataclasses import dataclass

from relay.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""Where a value is: keys of sections and positions in lists, from the top."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. ``str()`` of it is the line that the operator reads."""

    where: str
    """``config.yaml:12``, ``.env:3``, ``environment`` or ``command line``."""
    key: str
    """The key, or the name of the variable; empty for the file as a whole."""
    text: str
    """What is wrong; the cure."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.text) if part)


class Mistakes(ConfigError):
    """Every mistake of a configuration; the message has one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)
