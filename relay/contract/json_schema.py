"""JSON Schema 2020-12 of the events, from the models that write them.

Within an ``api_version`` the schema only grows: keys, values of an enumeration and event types may be added. It
therefore allows keys that it does not name, and names each enumeration.
"""

import ast
import importlib
import inspect
import itertools
import pkgutil
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

import relay.events
from relay.events.catalog import CATALOG
from relay.events.envelope import API_VERSION
from relay.events.samples import SAMPLES

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
GROWTH = (
    "Later releases may add keys, values of an enumeration and event types: ignore keys that you do not know, and "
    "acknowledge events of a type or with a value that you do not handle."
)
_REF = "#/$defs/{model}"


def type_schema(name: str) -> Schema:
    """The schema of one event type. Raises ``KeyError`` for a type that is not in the catalog."""
    parts = definitions([name])
    event = parts.pop(CATALOG[name].__name__)
    return {**_head(name), "$comment": GROWTH, **event, "$defs": parts}


def union_schema(names: Iterable[str] = tuple(CATALOG)) -> Schema:
    """The schema of any event of these types."""
    names = tuple(names)
    return {
        **_head("events"),
        "title": "Event",
        "description": f"The body of a webhook of api_version {API_VERSION}, by `type`. {GROWTH}",
        "oneOf": [{"$ref": _REF.format(model=CATALOG[name].__name__)} for name in names],
        "$defs": definitions(names),
    }


def definitions(names: Iterable[str], ref: str = _REF) -> dict[str, Schema]:
    """The schemas of these event types and of all their parts, by name. ``ref`` is how they refer to each other."""
    models = [CATALOG[name] for name in names]
    _, document = models_json_schema([(model, "validation") for model in models], ref_template=ref)
    named: dict[str, Schema] = {}
    parts = {name: _object(schema, ref, named) for name, schema in document["$defs"].items()}
    for model in models:
        name = model.model_fields["type"].default
        parts[model.__name__]["examples"] = [SAMPLES[name].model_dump(mode="json")]
    return dict(sorted({**parts, **named}.items()))


def plain(text: str) -> str:
    """A docstring as one line of Markdown."""
    return " ".join(text.split()).replace("``", "`")


@cache
def enumerations() -> Mapping[tuple[str, ...], tuple[str, str]]:
    """The values of each ``Name = Literal[…]`` of relay/events that has a docstring → its name, and the docstring."""
    return {typing.get_args(alias): (name, plain(text)) for name, alias, text in _aliases()}


def _aliases() -> Iterator[tuple[str, Any, str]]:
    for info in pkgutil.iter_modules(relay.events.__path__, "relay.events."):
        module = importlib.import_module(info.name)
        statements = ast.parse(inspect.getsource(module)).body
        for statement, after in itertools.pairwise(statements):
            match statement, after:
                case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                    if typing.get_origin(alias := getattr(module, name)) is typing.Literal:
                        yield name, alias, text


def _head(name: str) -> Schema:
    return {"$schema": DIALECT, "$id": f"urn:speech-relay:{API_VERSION}:{name}"}


def _object(schema: Schema, ref: str, named: dict[str, Schema]) -> Schema:
    """A model's schema as receivers see it. Enumerations go to ``named``."""
    properties = {key: _property(value, ref, named) for key, value in schema["properties"].items()}
    # a constant has a default in the model, for convenience, and is in every event
    always = {*schema.get("required", ()), *(key for key, value in properties.items() if "const" in value)}
    described = {"description": plain(schema["description"])} if "description" in schema else {}
    return {
        "title": schema["title"],
        **described,
        "type": "object",
        "properties": properties,
        "required": [key for key in properties if key in always],
    }


def _property(schema: Schema, ref: str, named: dict[str, Schema]) -> Schema:
    kept = {key: value for key, value in schema.items() if key not in ("title", "description")}
    if "const" in kept:
        del kept["default"]
    if "items" in kept:
        kept["items"] = _property(kept["items"], ref, named)
    if "anyOf" in kept:
        kept["anyOf"] = [_property(each, ref, named) for each in kept["anyOf"]]
    if "enum" in kept:
        values = tuple(kept.pop("enum"))
        name, text = enumerations()[values]
        named[name] = {"title": name, "description": text, "type": kept.pop("type"), "enum": list(values)}
        # a description beside $ref is refused by AsyncAPI, and makes TypeScript's generators copy the type
        refers: Schema = {"$ref": ref.format(model=name)}
        kept = {"allOf": [refers], **kept} if "description" in schema else {**refers, **kept}
    if "description" in schema:
        kept["description"] = plain(schema["description"])
    return kept
