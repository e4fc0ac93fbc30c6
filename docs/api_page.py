"""docs/reference/api.md, from the OpenAPI document that the relay serves."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relay.api.app import application
from relay.api.backend import Backend, Playground
from relay.api.health import router
from relay.api.problems import EXPLAINED
from relay.api.routes.all import routers_of
from relay.app.metrics import webhook_counter
from relay.capture.livekit.access import Access
from relay.capture.livekit.webhook import LiveKitHints
from relay.clock import SystemClock
from relay.telemetry.metrics import Metrics

PAGE = Path(__file__).parent / "reference" / "api.md"


def api_page() -> Iterator[str]:
    """What is written by hand up to the heading of the list, then the list."""
    by_hand, heading, _ = PAGE.read_text().partition("\n## Every status\n")
    yield by_hand + heading
    for status, meaning in EXPLAINED.items():
        yield f"- {status}: {meaning}"
    document = _document()
    schemas = document["components"]["schemas"]
    sent = _sent(document["paths"], schemas)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"\n## {method.upper()} {path}\n"
            yield _prose(operation.get("description", ""))
            yield from _parameters(operation)
            yield from _body(operation)
            yield from _answers(operation)
    yield "\n## Types\n"
    yield "Times are ISO 8601: UTC with milliseconds in answers, with a time zone in requests. Durations in requests"
    yield "are written as in config.yaml (`15s`, `5m30s`), or a number of seconds."
    for name, schema in sorted(schemas.items()):
        yield f"\n### {name}\n"
        if schema.get("description"):
            yield _prose(schema["description"]) + "\n"
        if "enum" in schema:
            yield f"One of {', '.join(f'`{value}`' for value in schema['enum'])}."
        for key, field in schema.get("properties", {}).items():
            facts = [_type(field), *(_choice(field, key in schema.get("required", ())) if name in sent else ())]
            yield _line(key, ", ".join(facts), field.get("description"))


def _document() -> dict[str, Any]:
    # the operations are described, and not called: there is no log behind them
    backend = Backend(
        _NoLog(),  # type: ignore[arg-type]
        tuple,
        SystemClock(),
        livekit=LiveKitHints(Access("", "", ""), bool, webhook_counter()),
        playground=Playground("", Access("", "", "").guest_token, bool),
    )
    return application([router({}, Metrics(())), *routers_of(backend)], documented=True).openapi()


class _NoLog:
    endpoints = api_endpoints = None


def _parameters(operation: dict[str, Any]) -> Iterator[str]:
    if known := operation.get("parameters"):
        yield "\nParameters:\n"
        for each in known:
            schema = each["schema"]
            where = {"path": ["in the path"], "header": ["header"], "query": []}[each["in"]]
            facts = [_type(schema), *where, *_choice(schema, each.get("required", False) and each["in"] != "path")]
            yield _line(each["name"], ", ".join(facts), each.get("description"))


def _body(operation: dict[str, Any]) -> Iterator[str]:
    if body := operation.get("requestBody"):
        (kind, content), *_ = body["content"].items()
        yield f"\nBody: {_type(content['schema']) if kind == 'application/json' else f'`{kind}`'}."


def _choice(schema: dict[str, Any], required: bool) -> Iterator[str]:
    """What a sender needs to know of a value besides its type."""
    if required:
        yield "required"
    default = schema.get("default")
    if default not in (None, "") and not isinstance(default, dict):  # the type's own page has those of its keys
        yield f"default `{_value(default)}`"
    if schema.get("maximum", 2**53) < 2**53:
        yield f"at most {_value(schema['maximum'])}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _sent(paths: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    """The types that bodies of requests are made of."""
    found = set[str]()
    waiting = [json.dumps(op["requestBody"]) for ops in paths.values() for op in ops.values() if "requestBody" in op]
    while waiting:
        names = set(re.findall(r'"#/components/schemas/(\w+)"', waiting.pop())) - found
        found |= names
        waiting += [json.dumps(schemas[name]) for name in names]
    return found


def _answers(operation: dict[str, Any]) -> Iterator[str]:
    good = [status for status in sorted(operation["responses"]) if status.startswith("2")]
    content = operation["responses"][good[0]].get("content", {})
    types = [f"`{kind}`" if kind != "application/json" else _type(each["schema"]) for kind, each in content.items()]
    others = [status for status in sorted(operation["responses"]) if status not in good]
    yield f"\nAnswers: {' or '.join(good)} with {' or '.join(types) or 'nothing'}; {', '.join(others)}."


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("format") == "date-time":
        return "time"
    return str(schema.get("type", "anything"))


def _line(name: str, facts: str, description: str | None) -> str:
    text = _prose(description or "")
    return f"- `{name}` ({facts}): {text}" if text else f"- `{name}` ({facts})"


def _prose(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")
