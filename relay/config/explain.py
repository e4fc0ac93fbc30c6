"""Turns pydantic's errors into lines that an operator can act on."""

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from relay.config.fields import nearest
from relay.config.layers import Layer
from relay.config.models import Config
from relay.config.problems import KeyPath, Mistake

_PLAIN = {
    "missing": "is missing; add it",
    "string_type": "not text; put it in quotes",
    "bool_parsing": "not a yes or no; write true or false",
    "bool_type": "not a yes or no; write true or false",
    "int_parsing": "not a whole number; write it in digits",
    "int_from_float": "not a whole number; write it in digits",
    "float_parsing": "not a number; write it in digits",
    "too_short": "is empty; name at least one",
    "tuple_type": "not a list; write it like [a, b]",
    "dict_type": "not a section; write `key: value` lines under it",
    "model_type": "not a section; write `key: value` lines under it",
    "model_attributes_type": "not a section; write `key: value` lines under it",
    "ip_any_network": "not a network; write it like 10.1.0.0/16 or fd12:3456::/32, host bits zero",
    "string_pattern_mismatch": "not a name; lower-case letters, digits, - and _ only, at most 64",
}


def explain(error: ErrorDetails, layers: Sequence[Layer], values: dict[str, Any]) -> Mistake:
    """The line for one of pydantic's errors. ``layers``: weakest first; ``values``: the merged values."""
    path: KeyPath = error["loc"]
    return locate(path, _text(error), layers, values)


def locate(path: KeyPath, text: str, layers: Sequence[Layer], values: dict[str, Any]) -> Mistake:
    """A problem with the value at a path, reported at the strongest layer that has it or an enclosing value."""
    while path and isinstance(path[-1], int) and not any(layer.has(path) for layer in layers):
        path = path[:-1]  # pydantic reports a single value as the first item of a list
    for end in range(len(path), 0, -1):
        for layer in reversed(layers):
            if layer.has(path[:end]):
                return Mistake(layer.where(path[:end]), layer.label(path) or key_of(path, values), text)
    return Mistake(layers[0].where(()), key_of(path, values), text)


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


def _text(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(error["loc"])
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"not a possible value; one of {context['expected'].replace(chr(39), '')}"
    if kind.startswith("url_"):
        return "not an http:// or https:// URL; write it like https://example.com/hooks"
    if kind == "tuple_type" and error["loc"] == ("endpoints",):
        return "not a list; begin each endpoint with `- name: …`"
    return _PLAIN.get(kind) or error["msg"].removeprefix("Input ")


def _unknown(path: KeyPath) -> str:
    known = tuple(_model_at(path[:-1]).model_fields)
    meant = nearest(str(path[-1]), known)
    return f"unknown key; did you mean {meant}?" if meant else f"unknown key; known here: {', '.join(known)}"


def _model_at(path: KeyPath) -> type[BaseModel]:
    """The section that a path leads to."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, str):
            annotation: Any = model.model_fields[part].annotation
            inner = (annotation, *get_args(annotation))
            model = next(each for each in inner if isinstance(each, type) and issubclass(each, BaseModel))
    return model
