"""Loads config.yaml, ``.env`` and the environment into one :class:`Config`, or a list of mistakes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from relay.config import quotes
from relay.config.api import unusable_tokens
from relay.config.document import Document, read_document
from relay.config.environment import read_environment
from relay.config.fields import nearest
from relay.config.layers import (
    Layer,
    file_layer,
    livekit_layer,
    merge,
    section_of,
    unusable,
    variable_layer,
    wrong_variables,
)
from relay.config.models import Config
from relay.config.problems import MAX_MISTAKES, KeyPath, Mistake, Mistakes, in_words
from relay.config.signing import keyless, repeated_names, unset_variables, unsigned, with_livekit_keys, with_secrets

_CURE = "`speech-relay init` makes one in .env as {}, or write signing: none"
_LIVEKIT_CURE = "set livekit_key, or LIVEKIT_API_KEY and LIVEKIT_API_SECRET, to sign as LiveKit does"
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_WITHOUT_BRACES = re.compile(r"(?<![\w$])\$([A-Za-z_][A-Za-z0-9_]*)")
_OUTBOX_URL = "SPEECH_RELAY__OUTBOX__URL"
MAX_TEXT = 4 * 1024 * 1024
"""Maximum characters of all texts after expansion."""


def load(path: Path | None, *, environ: Mapping[str, str]) -> Config:
    """Load the configuration from a file, the ``.env`` beside it, and the environment.

    ``path``: config.yaml; ``None`` for defaults and environment only. The environment wins over the file, and a process
    variable over ``.env``.

    Raises :class:`Mistakes` (a :class:`relay.errors.ConfigError`) that lists every mistake, one line each.
    """
    environment = read_environment(path, environ)
    document = read_document(path) if path else Document("defaults", {}, {})
    faults: dict[KeyPath, str] = {}
    layers = (
        file_layer(document, expand(document.values, environment.values, faults)),
        livekit_layer(environment),
        variable_layer(environment),
    )
    merged = merge(layers)
    values, signed_by = with_secrets(with_livekit_keys(merged), environment)

    problems = [locate(at, text, layers[:1], values) for at, text in faults.items()]
    problems += [Mistake(environment.where(name), name, text) for name, text in wrong_variables(environment).items()]
    problems += [
        Mistake(where, name, "is empty; write the URL of the log, or unset it")
        for name, where in environment.empty.items()
        if name.upper() == _OUTBOX_URL
    ]
    if unfit := dict(unusable(values)):
        # check this first: the first consumer of a text with half a surrogate pair would fail
        raise Mistakes([*problems, *(locate(at, text, layers, values) for at, text in unfit.items())])
    config = None
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False)[: MAX_MISTAKES + 1]:
            problem = explain(detail, layers, values)
            if variable := signed_by.get(detail["loc"][:3]):
                problem = Mistake(environment.where(variable), variable, problem.text)
            if not any(detail["loc"][: len(at)] == at for at in faults):
                problems.append(problem)
    problems += [locate(at, text, layers, values) for at, text in (*repeated_names(values), *unusable_tokens(values))]
    problems += [
        locate(("endpoints", index), f"has no secret; {_CURE.format(variable)}", layers, values)
        for index, _, variable in unsigned(values)
    ]
    problems += [
        locate(("endpoints", index), f"has no key; {_LIVEKIT_CURE}", layers, values) for index in keyless(values)
    ]
    problems += [
        Mistake(environment.where(name), name, wrong)
        for name in _provider_keys(config)
        if (wrong := quotes.at_an_end(environment.values.get(name, "")))
    ]
    if problems or config is None:
        raise Mistakes(sorted(dict.fromkeys(problems), key=_reading_order))
    return config


def unset_secrets(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Each unset variable from which a file's endpoints take a signing secret, with its endpoint's name.

    Raises :class:`Mistakes` only if the file or ``.env`` cannot be read at all.
    """
    return unset_variables(read_document(path).values, read_environment(path, environ).values)


def _provider_keys(config: Config | None) -> set[str]:
    """The variables in which LiveKit plugins look for their key."""
    if config is None:
        return set()
    used = [config.capture.stt.provider, *([config.capture.realtime.provider] if config.capture.realtime else [])]
    return {f"{name.upper().replace('-', '_')}_API_KEY" for name in used}


def _reading_order(problem: Mistake) -> tuple[str, int, str]:
    file, _, line = problem.where.rpartition(":")
    return (file, int(line), "") if line.isdecimal() else (problem.where, 0, problem.key)


def expand(values: dict[str, Any], variables: Mapping[str, str], faults: dict[KeyPath, str]) -> dict[str, Any]:
    """The same values with ``${VAR}`` and ``${VAR:-default}`` expanded; ``$${`` is a literal ``${``.

    A reference that fails stays as it is and is reported in ``faults``.
    """
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
        if not isinstance(value, str):
            return value
        for name in _WITHOUT_BRACES.findall(value):
            if name in self._variables:  # else a value may have a dollar sign
                self._faults[path] = f"${name} is not replaced without braces; write ${{{name}}}"
        return self._text(value, path) if "${" in value else value

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
        if default is not None and "${" in default:
            self._faults[path] = f"the default of {name} is a variable, which is not replaced; write a text"
            return reference[0]
        if name in self._variables:
            return self._variables[name]
        if default is None:
            self._faults[path] = f"${{{name}}} is not set; set {name} in the environment or in .env"
            return reference[0]
        return str(default)


def explain(error: ErrorDetails, layers: Sequence[Layer], values: dict[str, Any]) -> Mistake:
    """The line for one of pydantic's errors. ``layers``: weakest first; ``values``: the merged values."""
    path: KeyPath = error["loc"]
    value = _value_at(path, values)
    if value is None:
        text = "has no value; write one, or take the key out"
    elif str(value).lower() in _WORDS_FOR_NONE and _may_be_none(path):
        text = "write null for none"
    else:
        text = _text(error)
    return locate(path, text, layers, values)


_WORDS_FOR_NONE = ("false", "none", "never", "off", "no", "disabled")


def _value_at(path: KeyPath, values: Any) -> Any:
    """The value that the path leads to; ``...`` for a path with a part of pydantic's own, which leads nowhere."""
    for part in path:
        match values, part:
            case dict(), str() if part in values:
                values = values[part]
            case ((list() | tuple()), int()) if part < len(values):
                values = values[part]
            case _:
                return ...
    return values


def _may_be_none(path: KeyPath) -> bool:
    field = _model_at(path[:-1]).model_fields.get(str(path[-1]))
    return field is not None and type(None) in get_args(field.annotation)


def locate(path: KeyPath, text: str, layers: Sequence[Layer], values: dict[str, Any]) -> Mistake:
    """A problem with the value at a path, reported at the strongest layer that has it or an enclosing value."""
    while path and isinstance(path[-1], int) and not any(layer.has(path) for layer in layers):
        path = path[:-1]  # pydantic reports a single value as the first item of a list
    for end in range(len(path), 0, -1):
        for layer in reversed(layers):
            if layer.has(path[:end]):
                return Mistake(layer.where(path[:end]), _key_in(layer, path, values), text)
    return Mistake(layers[0].where(()), key_of(path, values), text)


def _key_in(layer: Layer, path: KeyPath, values: dict[str, Any]) -> str:
    """A path as this layer has it: the variable's name, and what follows within its value."""
    key, name = key_of(path, values), layer.label(path)
    if name is None:
        return key
    whole = next(end for end in range(1, len(path) + 1) if layer.label(path[:end]) == name)
    return name + key[len(key_of(path[:whole], values)) :]


def key_of(path: KeyPath, values: dict[str, Any]) -> str:
    """A path as operators write it, endpoints by name: ``endpoints[crm].events[0]``."""
    key = ""
    node: Any = values
    for part in path:
        if isinstance(part, int):
            node = node[part] if isinstance(node, (list, tuple)) and part < len(node) else None
            name = (
                node.get("name") if path[0] == "endpoints" and isinstance(node, dict) and key == "endpoints" else None
            )
            key += f"[{name if isinstance(name, str) else part}]"
        else:
            node = node.get(part) if isinstance(node, dict) else None
            key += f".{part}" if key else part
    return key


MOST_PLACES = 3
"""Places of a key that a mistake names."""


def _text(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(error["loc"])
    if kind == "tuple_type" and error["loc"] == ("endpoints",):
        return "not a list; begin each endpoint with `- name: …`"
    return in_words(kind, context, error["msg"])


def _unknown(path: KeyPath) -> str:
    word, known = str(path[-1]), tuple(_model_at(path[:-1]).model_fields)
    if meant := nearest(word, known):
        return f"unknown key; did you mean {meant}?"
    if "options" in known:
        return f"unknown key; if it is an option of the plugin, write options: {{{word}: …}}"
    if places := list(_places(word, Config)):
        return f"unknown key here; its place is {' or '.join(places[:MOST_PLACES])}"
    return f"unknown key; known here: {', '.join(known)}"


def _places(word: str, model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Where the key of this name is known, as operators write it."""
    for name, field in model.model_fields.items():
        if not above and name == "admin":  # the former name of another section
            continue
        if name == word:
            yield f"{above}{name}" if above else f"{name}, at the beginning of a line"
        section = section_of(field.annotation)
        if section is not None:
            yield from _places(word, section, f"{above}{name}{'[]' if _is_list(field.annotation) else ''}.")


def _model_at(path: KeyPath) -> type[BaseModel]:
    """The section that a path leads to."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, str):
            model = section_of(model.model_fields[part].annotation) or model
    return model


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple
