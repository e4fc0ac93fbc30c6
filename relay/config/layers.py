"""Where values come from, weakest first: config.yaml, ``LIVEKIT_*``, ``SPEECH_RELAY__SECTION__KEY``, flags.

pydantic-settings reads the environment by the types in :mod:`relay.config.models`; what is here remembers which layer
each value came from, because a mistake is told where the operator can correct it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.sources.utils import parse_env_vars

from relay.config.document import Document
from relay.config.environment import Environment
from relay.config.models import Config
from relay.config.problems import KeyPath

PREFIX = "SPEECH_RELAY__"
_LIVEKIT = {"url": "LIVEKIT_URL", "api_key": "LIVEKIT_API_KEY", "api_secret": "LIVEKIT_API_SECRET"}


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place."""

    values: dict[str, Any]
    where: Callable[[KeyPath], str]
    """The place of a value, as the operator knows it."""
    label: Callable[[KeyPath], str | None] = field(default=lambda _: None)
    """The name under which the operator wrote it there, if it is not the key itself."""

    def has(self, path: KeyPath) -> bool:
        node: Any = self.values
        for part in path:
            if not isinstance(node, (dict, list, tuple)):
                return False
            try:
                node = node[part]  # type: ignore[index]  # a key that does not fit is caught below
            except (KeyError, IndexError, TypeError):
                return False
        return True


def file_layer(document: Document, values: dict[str, Any]) -> Layer:
    return Layer(values, document.where)


def livekit_layer(environment: Environment) -> Layer:
    """The three variables that every LiveKit tool reads."""
    values = {key: environment.values[name] for key, name in _LIVEKIT.items() if name in environment.values}

    def label(path: KeyPath) -> str | None:
        return _LIVEKIT.get(str(path[-1]))

    return Layer({"livekit": values} if values else {}, lambda path: environment.where(label(path) or ""), label)


def variable_layer(environment: Environment) -> Layer:
    """``SPEECH_RELAY__OUTBOX__URL`` is ``outbox.url``. Lists are JSON or separated by commas, sections are JSON."""

    def label(path: KeyPath) -> str | None:
        for end in range(len(path), 0, -1):
            name = PREFIX + "__".join(map(str, path[:end])).upper()
            if name in environment.values:
                return name
        return None

    return Layer(_Variables(environment.values)(), lambda path: environment.where(label(path) or ""), label)


def unknown_variables(environment: Environment) -> tuple[str, ...]:
    """Variables that begin like ours and name no section: never read, surely by a slip of the pen."""
    ours = (name for name in environment.values if name.startswith(PREFIX))
    return tuple(name for name in ours if name.removeprefix(PREFIX).split("__")[0].lower() not in Config.model_fields)


def flag_layer(flags: Mapping[str, Any]) -> Layer:
    """Flags by the dotted key that each stands for: ``{"outbox.url": …}``. One that is ``None`` was not given."""
    values: dict[str, Any] = {}
    for dotted, value in flags.items():
        if value is not None:
            *sections, key = dotted.split(".")
            node = values
            for section in sections:
                node = node.setdefault(section, {})
            node[key] = value
    return Layer(values, lambda _: "command line")


def merge(layers: Sequence[Layer]) -> dict[str, Any]:
    """The values of all layers, weakest first: sections are joined key by key, everything else is replaced."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _joined(merged, layer.values)
    return merged


def _joined(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    joined = dict(under)
    for key, value in over.items():
        below = joined.get(key)
        joined[key] = _joined(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return joined


class _Names(Config, BaseSettings):
    """The configuration as pydantic-settings looks for it in the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", env_parse_none_str="null")


class _Variables(EnvSettingsSource):
    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(_Names)
        self.env_vars = parse_env_vars(variables, parse_none_str="null")

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return json.loads(value)
        except ValueError:
            return [part.strip() for part in value.split(",")]
