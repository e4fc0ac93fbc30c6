"""``${VAR}`` and ``${VAR:-default}`` in the strings of config.yaml. ``$${`` stands for a literal ``${``."""

import re
from collections.abc import Mapping
from typing import Any

from relay.config.problems import KeyPath

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def expand(value: Any, variables: Mapping[str, str], faults: dict[KeyPath, str], path: KeyPath = ()) -> Any:
    """The same values with every reference replaced. What cannot be is left as it is and told in ``faults``."""
    if isinstance(value, dict):
        return {key: expand(item, variables, faults, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, variables, faults, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(reference: re.Match[str]) -> str:
        if reference[0] == "$${":
            return "${"
        named = _NAME.fullmatch(reference[1])
        if named is None or not reference[0].endswith("}"):
            faults[path] = "not a variable; write ${NAME} or ${NAME:-default}, and $${ for a literal ${"
            return reference[0]
        name, default = named.groups()
        if name in variables:
            return variables[name]
        if default is None:
            faults[path] = f"${{{name}}} is not set; set {name} in the environment or in .env"
            return reference[0]
        return str(default)

    return _REFERENCE.sub(replace, value)
