"""Merges configuration sources, weakest first: config.yaml, ``LIVEKIT_*``, ``SPEECH_RELAY__SECTION__KEY``.

pydantic-settings reads the environment by the types in :mod:`relay.config.models`; this module records the layer of
each value, because an error is reported where the operator can correct it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.sources.utils import parse_env_vars

from relay.config import quotes
from relay.config.document import MAX_DEPTH, Document
from relay.config.environment import Environment
from relay.config.fields import nearest
from relay.config.models import Config
from relay.config.problems import KeyPath

_BRAND = "SPEECH_RELAY_"
PREFIX = f"{_BRAND}_"
_UNDERSCORES = re.compile("_+")
_LIVEKIT = {"url": "LIVEKIT_URL", "api_key": "LIVEKIT_API_KEY", "api_secret": "LIVEKIT_API_SECRET"}
_MEANT_AS_JSON = re.compile(r'\{|\[\s*["{\[]')
"""A list that begins differently may be a list of globs."""
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_LONGEST_NUMBER = 40


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one source."""

    values: dict[str, Any]
    where: Callable[[KeyPath], str]
    """The location of a value, as the operator knows it."""
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

    formed = {
        name: environment.values[name] for name in environment.values.keys() - wrong_variables(environment).keys()
    }
    return Layer(_Variables(formed)(), lambda path: environment.where(label(path) or ""), label)


def wrong_variables(environment: Environment) -> dict[str, str]:
    """Errors in the form of our variables, by name: no section, too many parts, too few underscores, or a list that is
    not JSON."""
    wrong = {}
    for name, value in environment.values.items():
        if name.upper().startswith(PREFIX) and (text := _wrong_with(name, value)):
            wrong[name] = text
        elif name.upper().startswith(_BRAND) and not name.upper().startswith(PREFIX) and (meant := _spelled(name)):
            wrong[name] = f"is not read; did you mean {meant}?"
    return wrong


def _spelled(name: str) -> str | None:
    """The variable that differs from this one in the number of underscores only."""
    return _spellings().get(_UNDERSCORES.sub("_", name.upper()))


@cache
def _spellings() -> dict[str, str]:
    variables = [PREFIX + "__".join(path).upper() for path in _keys(Config)]
    return {_UNDERSCORES.sub("_", variable): variable for variable in variables}


def _keys(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The path of every key that a variable may name: none inside a list."""
    for name, known in model.model_fields.items():
        section = section_of(known.annotation)
        if section is not None and get_origin(known.annotation) is not tuple:
            if model is not Config:
                yield (name,)
            yield from ((name, *path) for path in _keys(section))
        elif model is not Config or name == "endpoints":
            yield (name,)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a value of this type is, or holds."""
    inner = (annotation, *get_args(annotation))
    return next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _wrong_with(name: str, value: str) -> str | None:
    section, *keys = name[len(PREFIX) :].split("__")
    if section.lower() not in Config.model_fields:
        # never read, surely a typing error
        if spelled := _spelled(name):
            return f"names no section; did you mean {spelled}?"
        meant = nearest(section.lower(), tuple(Config.model_fields))
        return "names no section; " + (
            f"did you mean {'__'.join([PREFIX + meant.upper(), *keys])}?" if meant else "take it out"
        )
    if len(keys) > MAX_DEPTH or "" in keys:
        return "names no key; write SPEECH_RELAY__SECTION__KEY"
    if (wrong := quotes.at_an_end(value)) and "OPTIONS" not in map(str.upper, keys):
        return wrong
    if _MEANT_AS_JSON.match(value):
        try:
            _from_json(value)
        except ValueError as error:
            return f"not JSON: {error}"
    return None


def unusable(values: Any) -> Iterator[tuple[KeyPath, str]]:
    """Finds values that are nested too deep, or have characters that neither files nor the network accept."""
    waiting: list[tuple[KeyPath, Any]] = [((), values)]
    while waiting:
        path, value = waiting.pop()
        if len(path) > MAX_DEPTH:
            yield path, f"nested more than {MAX_DEPTH} levels deep"
        elif isinstance(value, dict):
            waiting += [((*path, key), item) for key, item in value.items()]
            if any(_UNUSABLE.search(key) for key in value if isinstance(key, str)):
                yield path, "has a key with a character that is none; take it out"
        elif isinstance(value, (list, tuple)):
            waiting += [((*path, index), item) for index, item in enumerate(value)]
        elif isinstance(value, str) and _UNUSABLE.search(value):
            yield path, "has a NUL character, or bytes that are not UTF-8; take them out"


def merge(layers: Sequence[Layer]) -> dict[str, Any]:
    """The merged values of all layers, weakest first: sections are joined key by key, other values are replaced."""
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
    """The configuration as pydantic-settings reads it from the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", env_parse_none_str="null")


class _Variables(EnvSettingsSource):
    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(_Names)
        self.env_vars = parse_env_vars(variables, parse_none_str="null")

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return _from_json(value)
        except ValueError:
            return [part.strip() for part in value.split(",")]


def _from_json(text: str) -> Any:
    """Raises ``ValueError`` with the error and its location."""
    try:
        value = json.loads(text, object_pairs_hook=_each_once, parse_int=_int)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg[0].lower()}{error.msg[1:]} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep") from None
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("it has a key twice in one place; keep one")
    return values


def _int(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError("it has a number with too many digits")
    return int(digits)
