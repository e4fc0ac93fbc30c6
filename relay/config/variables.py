"""Expands ``${VAR}`` and ``${VAR:-default}`` in config.yaml. ``$${`` is a literal ``${``."""

import re
from collections.abc import Mapping
from typing import Any

from relay.config.problems import KeyPath

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


MAX_TEXT = 4 * 1024 * 1024
"""Maximum characters of all texts after expansion."""


def expand(values: dict[str, Any], variables: Mapping[str, str], faults: dict[KeyPath, str]) -> dict[str, Any]:
    """The same values with every reference expanded. A failed one stays as it is and is reported in ``faults``."""
    expanded = _Expansion(variables, faults).of(values, ())
    return expanded if isinstance(expanded, dict) else values


class _Expansion:
    def __init__(self, variables: Mapping[str, str], faults: dict[KeyPath, str]) -> None:
        self._variables, self._faults = variables, faults
        self._room = MAX_TEXT

    def of(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: self.of(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.of(item, (*path, index)) for index, item in enumerate(value)]
        return self._text(value, path) if isinstance(value, str) and "${" in value else value

    def _text(self, text: str, path: KeyPath) -> str:
        pieces, begin = [], 0
        for reference in _REFERENCE.finditer(text):
            pieces += [text[begin : reference.start()], self._replaced(reference, path)]
            begin = reference.end()
            self._room -= len(pieces[-1])
            if self._room < 0:
                self._faults[path] = "comes to more than 4 MiB of text with its variables; use shorter ones"
                return text
        return "".join((*pieces, text[begin:]))

    def _replaced(self, reference: re.Match[str], path: KeyPath) -> str:
        if reference[0] == "$${":
            return "${"
        named = _NAME.fullmatch(reference[1])
        if named is None or not reference[0].endswith("}"):
            self._faults[path] = "not a variable; write ${NAME} or ${NAME:-default}, and $${ for a literal ${"
            return reference[0]
        name, default = named.groups()
        if name in self._variables:
            return self._variables[name]
        if default is None:
            self._faults[path] = f"${{{name}}} is not set; set {name} in the environment or in .env"
            return reference[0]
        return str(default)
