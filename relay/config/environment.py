"""Environment variables: the real ones, and behind them those of a ``.env`` file.

A variable that is set to nothing counts as not set, so the empty lines that ``init`` writes mean nothing yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import parse_stream

from relay.config.problems import Mistakes, Problem


@dataclass(frozen=True, slots=True)
class Environment:
    """Variables by name, and where each came from."""

    values: Mapping[str, str]
    sources: Mapping[str, str]
    """``.env:3`` for those of a file; the others are the process's own."""

    def where(self, name: str) -> str:
        return self.sources.get(name, "environment")


def dotenv_beside(config: Path | None) -> Path:
    """The ``.env`` that belongs to a config file; without one, that of the working directory."""
    return (config.parent if config else Path()) / ".env"


def read_environment(config: Path | None, environ: Mapping[str, str]) -> Environment:
    """The process's variables, then those of the ``.env`` beside the config file.

    Raises :class:`Mistakes` for a line of ``.env`` that is not ``NAME=value``.
    """
    values = {name: value for name, value in environ.items() if value}
    sources: dict[str, str] = {}
    for name, (value, line) in read_dotenv(dotenv_beside(config)).items():
        if value and name not in values:
            values[name], sources[name] = value, f"{dotenv_beside(config)}:{line}"
    return Environment(values, sources)


def read_dotenv(path: Path) -> dict[str, tuple[str, int]]:
    """Value and line of each variable of a ``.env`` file; nothing for a file that is not there."""
    try:
        with path.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Mistakes([Problem(str(path), "", f"cannot be read: {type(error).__name__}")]) from None
    broken = [
        Problem(f"{path}:{b.original.line}", "", "not NAME=value; correct the line or begin it with #")
        for b in bindings
        if b.error or (b.key is not None and b.value is None)
    ]
    if broken:
        raise Mistakes(broken)
    return {b.key: (b.value, b.original.line) for b in bindings if b.key is not None and b.value is not None}
