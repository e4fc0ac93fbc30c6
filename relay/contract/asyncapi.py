"""AsyncAPI 3.0 of the webhooks: what a receiver subscribes to, one message for each event type."""

from collections.abc import Iterable
from typing import Any

from relay.contract.cloudevents import ENVELOPE, cloudevent
from relay.contract.http import ALWAYS, HEADERS
from relay.contract.json_schema import GROWTH, definitions, plain
from relay.dispatch.projection import CLOUDEVENTS_CONTENT_TYPE
from relay.events.catalog import CATALOG
from relay.events.envelope import API_VERSION
from relay.events.samples import SAMPLES

_REF = "#/components/schemas/{model}"


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
