"""Mistakes in the configuration, one line each: where, key, what, cure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


_PLAIN = {
    "missing": "is missing; add it",
    "string_type": "not text; put it in quotes",
    "bool_parsing": "not a yes or no; write true or false",
    "bool_type": "not a yes or no; write true or false",
    "int_parsing": "not a whole number; write it in digits",
    "int_type": "not a whole number; write it in digits",
    "int_parsing_size": "not a whole number; write it in digits",
    "int_from_float": "not a whole number; write it in digits",
    "float_type": "not a number; write it in digits",
    "path_type": "not the path of a file; write it as text",
    "string_too_short": "is empty; write it, or take it out",
    "float_parsing": "not a number; write it in digits",
    "too_short": "is empty; name at least one",
    "tuple_type": "not a list; write it like [a, b]",
    "dict_type": "not a section; write `key: value` lines under it",
    "model_type": "not a section; write `key: value` lines under it",
    "model_attributes_type": "not a section; write `key: value` lines under it",
    "ip_any_network": "not a network; write it like 10.1.0.0/16 or fd12:3456::/32, host bits zero",
    "string_pattern_mismatch": "not a name; lower-case letters, digits, - and _ only, at most 64",
}


def in_words(kind: str, context: Mapping[str, Any], message: str) -> str:
    """The problem and the cure that one of pydantic's errors stands for: its type, its context and its message."""
    if kind == "value_error":
        return str(context["error"])
    if kind in ("literal_error", "enum"):
        return f"not a possible value; one of {context['expected'].replace(chr(39), '')}"
    if kind.startswith("url_"):
        return "not an http:// or https:// URL; write it like https://example.com/hooks"
    return _PLAIN.get(kind) or message.removeprefix("Input ")
