"""docs/reference/api.md, from the OpenAPI document that the relay serves."""

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
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"\n## {method.upper()} {path}\n"
            yield _prose(operation.get("description", ""))
            yield from _parameters(operation)
            yield from _body(operation)
            yield from _answers(operation)
    yield "\n## Types\n"
    yield "Times are ISO 8601 in UTC with milliseconds."
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f"\n### {name}\n"
        if schema.get("description"):
            yield _prose(schema["description"]) + "\n"
        if "enum" in schema:
            yield f"One of {', '.join(f'`{value}`' for value in schema['enum'])}."
        for key, field in schema.get("properties", {}).items():
            yield _line(key, _type(field), field.get("description"))


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
            facts = [_type(schema), "in the path" if each["in"] == "path" else ""]
            facts.append("header" if each["in"] == "header" else "")
            if schema.get("default") is not None:
                facts.append(f"default `{schema['default']}`")
            facts += [f"at most {schema['maximum']}" for _ in range("maximum" in schema and schema["maximum"] < 2**53)]
            yield _line(each["name"], ", ".join(filter(None, facts)), each.get("description"))


def _body(operation: dict[str, Any]) -> Iterator[str]:
    if body := operation.get("requestBody"):
        (kind, content), *_ = body["content"].items()
        yield f"\nBody: {_type(content['schema']) if kind == 'application/json' else f'`{kind}`'}."


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
