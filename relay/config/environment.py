"""Environment variables: those of the process first, then those of a ``.env`` file.

Blanks and line ends around a value are removed: ``echo`` and Kubernetes secrets end with a line break. A variable that
is then empty counts as not set, so the empty lines that ``init`` writes have no effect. That of ``outbox.url`` must not
be empty: the events would go to another log.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from relay.config.files import decoded, read_file
from relay.config.problems import Mistake, Mistakes

_KEYS = ("_KEY", "_SECRET", "_TOKEN", "_URL")
"""Suffixes of the variable names that plugins read."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Variables by name, and the source of each."""

    values: Mapping[str, str]
    sources: Mapping[str, str]
    """``.env:3`` for variables from a file; the others are the process's own."""
    empty: Mapping[str, str] = field(default_factory=dict)
    """The source of each variable that is empty, and so not set."""

    def where(self, name: str) -> str:
        return self.sources.get(name, "environment")


def dotenv_beside(config: Path | None) -> Path:
    """The ``.env`` beside a config file; without one, that of the working directory."""
    return (config.parent if config else Path()) / ".env"


def read_environment(config: Path | None, environ: Mapping[str, str]) -> Environment:
    """The process's variables, then those of the ``.env`` beside the config file.

    Raises :class:`Mistakes` for a line of ``.env`` that is not ``NAME=value``.
    """
    values = {name: text for name, value in environ.items() if (text := value.strip())}
    sources: dict[str, str] = {}
    empty = {name: "environment" for name, value in environ.items() if not value.strip()}
    for name, (value, line) in read_dotenv(dotenv_beside(config)).items():
        if name not in values and (text := value.strip()):
            values[name], sources[name] = text, f"{dotenv_beside(config)}:{line}"
        elif not value.strip():
            empty.setdefault(name, f"{dotenv_beside(config)}:{line}")
    return Environment(values, sources, {name: where for name, where in empty.items() if name not in values})


def exported(config: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables as plugins must find them: those of ``.env`` included, without surrounding blanks.

    An empty key is left out: some libraries accept an empty key. Raises :class:`Mistakes` as :func:`read_environment`
    does.
    """
    bare = {name: value.strip() for name, value in environ.items()}
    own = {name: value for name, value in bare.items() if value or not name.endswith(_KEYS)}
    return own | dict(read_environment(config, environ).values)


def read_dotenv(path: Path) -> dict[str, tuple[str, int]]:
    """Value and line of each variable of a ``.env`` file; empty if the file does not exist."""
    try:
        bindings = list(parse_stream(StringIO(decoded(read_file(path)))))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Mistakes([Mistake(str(path), "", f"cannot be read: {error.strerror}")]) from None
    except ValueError as error:
        raise Mistakes([Mistake(str(path), "", str(error))]) from None
    broken = [
        Mistake(f"{path}:{b.original.line}", "", "not NAME=value; correct the line or begin it with #")
        for b in bindings
        if _is_broken(b)
    ]
    if broken:
        raise Mistakes(broken)
    found: dict[str, tuple[str, int]] = {}
    emptied: list[Mistake] = []
    for binding in bindings:
        if binding.key is None or binding.value is None:
            continue
        before, line = found.get(binding.key, ("", 0)), binding.original.line
        if before[0].strip() and not binding.value.strip():
            what = f"is empty here, which undoes its value in line {before[1]}; take one of the lines out"
            emptied.append(Mistake(f"{path}:{line}", binding.key, what))
        found[binding.key] = (binding.value, line)
    if emptied:
        raise Mistakes(emptied)
    return found


def _is_broken(binding: Binding) -> bool:
    if binding.key is None:
        return binding.error
    return binding.value is None or "=" in binding.key  # a quoted name may contain one, which no environment accepts
