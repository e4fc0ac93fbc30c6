"""OpenAPI 3.1 of the webhooks: what a receiver implements."""

from collections.abc import Iterable
from typing import Any

from relay.contract.cloudevents import ENVELOPE, cloudevent
from relay.contract.http import ALWAYS, HEADERS, LIVEKIT_AUTHORIZATION, answers
from relay.contract.json_schema import GROWTH, Schema, definitions, plain
from relay.dispatch.projection import CLOUDEVENTS_CONTENT_TYPE
from relay.dispatch.signing import LIVEKIT_CONTENT_TYPE
from relay.events.catalog import CATALOG
from relay.events.envelope import API_VERSION

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
