"""Rules that span endpoints: names are unique, and each endpoint has a key or secret."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from relay.config.endpoint import secret_variable
from relay.config.environment import Environment
from relay.config.fields import NAME
from relay.config.problems import KeyPath

_REFERENCE = re.compile(r"\$\{(\w+)\}")

Endpoints = Iterator[tuple[int, str, dict[str, Any]]]


def repeated_names(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Endpoints that share the name, or the variable, of an earlier one, and the message for each."""
    seen: dict[str, str] = {}
    for index, name, _ in _named(values):
        variable = secret_variable(name)
        known = seen.get(variable)
        seen.setdefault(variable, name)
        if known == name:
            yield ("endpoints", index, "name"), f"another endpoint is called {name} too; give each its own name"
        elif known is not None:
            text = f"{variable} would hold the secret of {known} too; give one of them another name"
            yield ("endpoints", index, "name"), text


def unsigned(values: dict[str, Any]) -> Iterator[tuple[int, str, str]]:
    """Index, name and secret variable of each endpoint whose secret is required and not in the file."""
    for index, name, endpoint in _named(values):
        if endpoint.get("signing", "standard") == "standard" and not endpoint.get("secret"):
            yield index, name, secret_variable(name)


def unset_variables(values: dict[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Each unset variable that must hold a secret, with its endpoint: by default, or as ``${VAR}``.

    ``values`` are the file's own, with references unexpanded.
    """
    wanted = {variable: name for _, name, variable in unsigned(values)}
    for _, name, endpoint in _named(values):
        secret = endpoint.get("secret") if endpoint.get("signing", "standard") == "standard" else None
        for each in secret if isinstance(secret, list) else (secret,):
            if isinstance(each, str) and (reference := _REFERENCE.fullmatch(each)):
                wanted[reference[1]] = name
    return {variable: name for variable, name in wanted.items() if variable not in variables}


def with_secrets(values: dict[str, Any], environment: Environment) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The same values with each endpoint's secret from its variable, and the variable of each."""
    found = {index: name for index, _, name in unsigned(values) if name in environment.values}
    if not found:
        return values, {}
    endpoints = [
        {**endpoint, "secret": environment.values[found[index]]} if index in found else endpoint
        for index, endpoint in enumerate(values["endpoints"])
    ]
    return {**values, "endpoints": endpoints}, {("endpoints", i, "secret"): name for i, name in found.items()}


def keyless(values: dict[str, Any]) -> Iterator[int]:
    """Index of each endpoint that signs as LiveKit does and has no key of its own."""
    for index, _, endpoint in _named(values):
        if endpoint.get("signing") == "livekit" and endpoint.get("livekit_key") is None:
            yield index


def with_livekit_keys(values: dict[str, Any]) -> dict[str, Any]:
    """The same values, with the LiveKit project's key for endpoints that sign as LiveKit does."""
    livekit = values.get("livekit")
    pair = {key: livekit.get(key) for key in ("api_key", "api_secret")} if isinstance(livekit, dict) else {}
    wanting = set(keyless(values))
    if not wanting or not pair or not all(pair.values()):
        return values
    endpoints = [
        {**endpoint, "livekit_key": pair} if index in wanting else endpoint
        for index, endpoint in enumerate(values["endpoints"])
    ]
    return {**values, "endpoints": endpoints}


def _named(values: dict[str, Any]) -> Endpoints:
    endpoints = values.get("endpoints")
    for index, endpoint in enumerate(endpoints if isinstance(endpoints, (list, tuple)) else ()):
        name = endpoint.get("name") if isinstance(endpoint, dict) else None
        if isinstance(name, str) and re.search(NAME, name):  # what is wrong with another is said of the name itself
            yield index, name, endpoint
