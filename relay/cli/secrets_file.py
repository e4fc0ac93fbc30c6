"""Edits ``.env``: adds lines, fills empty ones, keeps the rest. Only its owner may read it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from relay.errors import ConfigError


def add_variables(path: Path, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Set each variable that is missing or empty in the file; returns the names of those set.

    The file appears complete, with mode 0600, or not at all. Raises :class:`ConfigError` if it cannot be written.
    """
    path = path.resolve()
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    changed: list[str] = []
    for name, value in variables.items():
        written = re.compile(rf"\s*(?:export\s+)?{re.escape(name)}\s*=\s*(.*)")
        places = [(index, match[1]) for index, line in enumerate(lines) if (match := written.fullmatch(line))]
        if not places:
            lines.append(f"{name}={value}")
        elif value and not places[-1][1].strip("\"' "):
            lines[places[-1][0]] = f"{name}={value}"
        else:
            continue
        if value:
            changed.append(name)
    _replace(path, "\n".join(lines) + "\n")
    return tuple(changed)


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
