"""OpenAPI 3.1 and AsyncAPI 3.0 of the webhooks, and every document of the contract with the name of its file.

OpenAPI says what a receiver implements, AsyncAPI what it subscribes to.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from relay.contract.json_schema import GROWTH, Schema, definitions, plain, type_schema, union_schema
from relay.contract.message import ALWAYS, ENVELOPE, HEADERS, LIVEKIT_AUTHORIZATION, answers, cloudevent
from relay.dispatch.projection import CLOUDEVENTS_CONTENT_TYPE
from relay.dispatch.signing import LIVEKIT_CONTENT_TYPE
from relay.events.catalog import CATALOG
from relay.events.envelope import API_VERSION
from relay.events.samples import SAMPLES

_REF = "#/components/schemas/{model}"


def openapi(names: Iterable[str] = tuple(CATALOG)) -> dict[str, Any]:
    """The document about these event types: one webhook for each."""
    names = tuple(names)
    union: Schema = {
        "title": "Event",
        "description": "Any event: its `type` says which.",
        "oneOf": [_schema(name) for name in names],
        "discriminator": {"propertyName": "type", "mapping": {name: _schema(name)["$ref"] for name in names}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "speech-relay webhooks",
            "version": API_VERSION,
            "description": "What an endpoint receives: each event is a POST to its `url`, at least once, in the order "
            f"of `stream.sequence` within each stream. {GROWTH}",
        },
        "webhooks": {name: {"post": _operation(name)} for name in names},
        "components": {
            "schemas": definitions(names, _REF) | {"Event": union, "CloudEvent": ENVELOPE},
            "parameters": {name: _parameter(name) for name in HEADERS},
            "headers": {
                "Retry-After": {
                    "description": "Seconds, or an HTTP date.",
                    "schema": {"type": "string"},
                }
            },
            "responses": {_response_name(status): _response(status, text) for status, text in answers().items()},
            "securitySchemes": {
                "standard": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "webhook-signature",
                    "description": HEADERS["webhook-signature"]["description"],
                },
                "livekit": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "authorization",
                    "description": LIVEKIT_AUTHORIZATION,
                },
            },
        },
    }


def _operation(name: str) -> dict[str, Any]:
    model = CATALOG[name]
    event = _schema(name)
    return {
        "operationId": f"receive{model.__name__}",
        "summary": name,
        "description": plain(model.__doc__ or ""),
        "tags": [name.partition(".")[0]],
        "security": [{"standard": []}, {"livekit": []}, {}],
        "parameters": [{"$ref": f"#/components/parameters/{header}"} for header in HEADERS],
        "requestBody": {
            "required": True,
            "description": "`application/json`; with `signing: livekit`, `application/webhook+json`; with "
            "`format: cloudevents`, `application/cloudevents+json`.",
            "content": {
                "application/json": {"schema": event},
                LIVEKIT_CONTENT_TYPE: {"schema": event},
                CLOUDEVENTS_CONTENT_TYPE: {"schema": cloudevent(name, _REF)},
            },
        },
        "responses": {status: {"$ref": f"#/components/responses/{_response_name(status)}"} for status in answers()},
    }


def _schema(name: str) -> Schema:
    return {"$ref": _REF.format(model=CATALOG[name].__name__)}


def _parameter(name: str) -> dict[str, Any]:
    schema = {key: value for key, value in HEADERS[name].items() if key != "description"}
    return {
        "name": name,
        "in": "header",
        "required": name in ALWAYS,
        "description": HEADERS[name]["description"],
        "schema": schema,
    }


def _response(status: str, text: str) -> dict[str, Any]:
    headers = {"headers": {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}}
    return {"description": text, **(headers if status in ("429", "503") else {})}


def _response_name(status: str) -> str:
    return {"2XX": "Acknowledged", "410": "Gone", "429": "TooMany", "503": "Unavailable"}.get(status, "Failed")


def asyncapi(names: Iterable[str] = tuple(CATALOG)) -> dict[str, Any]:
    """The document about these event types. A channel for each ``format`` of an endpoint."""
    names = tuple(names)
    events = definitions(names, _REF)
    for name in names:
        del events[CATALOG[name].__name__]["examples"]  # the message has it
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "speech-relay webhooks",
            "version": API_VERSION,
            "description": "Each event is one POST to an endpoint's `url`, at least once, in the order of "
            f"`stream.sequence` within each stream. {GROWTH}",
        },
        "defaultContentType": "application/json",
        "channels": {
            "standard": _channel(names, "", "An endpoint's `url`, with `format: standard`, the default."),
            "cloudevents": _channel(names, ".cloudevent", "An endpoint's `url`, with `format: cloudevents`."),
        },
        "operations": {
            name: {
                "action": "send",
                "summary": "The relay sends events.",
                "channel": {"$ref": f"#/channels/{name}"},
                "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
            }
            for name in ("standard", "cloudevents")
        },
        "components": {
            "schemas": events
            | {
                "CloudEvent": ENVELOPE,
                "Headers": {"type": "object", "properties": HEADERS, "required": list(ALWAYS)},
            },
            "messages": {
                key: message
                for name in names
                for key, message in ((name, _plain(name)), (f"{name}.cloudevent", _wrapped(name)))
            },
        },
    }


def _channel(names: tuple[str, ...], ending: str, description: str) -> dict[str, Any]:
    return {
        "address": None,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}{ending}"} for name in names},
    }


def _plain(name: str) -> dict[str, Any]:
    return {
        **_message(name),
        "payload": {"$ref": _REF.format(model=CATALOG[name].__name__)},
        "examples": [{"name": "sample", "payload": SAMPLES[name].model_dump(mode="json")}],
    }


def _wrapped(name: str) -> dict[str, Any]:
    return {**_message(name), "contentType": CLOUDEVENTS_CONTENT_TYPE, "payload": cloudevent(name, _REF)}


def _message(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": CATALOG[name].__name__,
        "summary": plain(CATALOG[name].__doc__ or ""),
        "headers": {"$ref": _REF.format(model="Headers")},
    }


Format = Literal["json-schema", "openapi", "asyncapi"]
Document = dict[str, Any]
Documents = Iterator[tuple[PurePosixPath, Document]]


def _schemas(names: Sequence[str]) -> Documents:
    yield PurePosixPath("events.json"), union_schema(names)
    for name in names:
        yield PurePosixPath(f"types/{name}.json"), type_schema(name)


def _openapi(names: Sequence[str]) -> Documents:
    yield PurePosixPath("openapi.json"), openapi(names)


def _asyncapi(names: Sequence[str]) -> Documents:
    yield PurePosixPath("asyncapi.json"), asyncapi(names)


FORMATS: Mapping[Format, Callable[[Sequence[str]], Documents]] = {
    "json-schema": _schemas,
    "openapi": _openapi,
    "asyncapi": _asyncapi,
}
"""Format → its documents about these event types, with the names of their files; the one about all types first."""


def examples(names: Sequence[str]) -> Documents:
    """A body of each type, and the name of its file."""
    for name in names:
        yield PurePosixPath(f"examples/{name}.json"), SAMPLES[name].model_dump(mode="json")


def written(document: Document | list[Document]) -> str:
    """The text of a file with this document."""
    return json.dumps(document, indent=2) + "\n"
