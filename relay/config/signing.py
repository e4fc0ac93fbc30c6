"""Rules that span endpoints: names are different, and each has something to sign with."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from relay.config.environment import Environment
from relay.config.models import secret_variable
from relay.config.problems import KeyPath

_REFERENCE = re.compile(r"\$\{(\w+)\}")

Endpoints = Iterator[tuple[int, str, dict[str, Any]]]


def repeated_names(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Where an endpoint has the name of an earlier one, and what to tell."""
    seen: set[str] = set()
    for index, name, _ in _named(values):
        if name in seen:
            yield ("endpoints", index, "name"), f"another endpoint is called {name} too; give each its own name"
        seen.add(name)


def unsigned(values: dict[str, Any]) -> Iterator[tuple[int, str, str]]:
    """Index, name and secret variable of each endpoint that is to sign and whose secret the file does not have."""
    for index, name, endpoint in _named(values):
        if endpoint.get("signing", "standard") != "none" and not endpoint.get("secret"):
            yield index, name, secret_variable(name)


def unset_variables(values: dict[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Each variable that is to hold a secret and is not set, with its endpoint: by default, or as ``${VAR}``.

    ``values`` are the file's own, references and all.
    """
    wanted = {variable: name for _, name, variable in unsigned(values)}
    for _, name, endpoint in _named(values):
        secret = endpoint.get("secret")
        for each in secret if isinstance(secret, list) else (secret,):
            if isinstance(each, str) and (reference := _REFERENCE.fullmatch(each)):
                wanted[reference[1]] = name
    return {variable: name for variable, name in wanted.items() if variable not in variables}


def with_secrets(values: dict[str, Any], environment: Environment) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The same values with each endpoint's secret from its variable, and which variable each came from."""
    found = {index: name for index, _, name in unsigned(values) if name in environment.values}
    if not found:
        return values, {}
    endpoints = [
        {**endpoint, "secret": environment.values[found[index]]} if index in found else endpoint
        for index, endpoint in enumerate(values["endpoints"])
    ]
    return {**values, "endpoints": endpoints}, {("endpoints", i, "secret"): name for i, name in found.items()}


def _named(values: dict[str, Any]) -> Endpoints:
    endpoints = values.get("endpoints")
    for index, endpoint in enumerate(endpoints if isinstance(endpoints, (list, tuple)) else ()):
        if isinstance(endpoint, dict) and isinstance(endpoint.get("name"), str):
            yield index, endpoint["name"], endpoint
