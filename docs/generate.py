"""Write the generated pages: ``python -m docs.generate``.

docs/reference/events.md and docs/reference/configuration.md come from the models themselves, docs/pictures/ from the
golden timelines.

A test holds the files to what this makes, so a field cannot be added without its page, and no picture shows what the
relay does not do.
"""

import inspect
import json
import typing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.timelines.pictures import pictures
from relay.config.capture import Provider
from relay.config.models import Config
from relay.events import envelope
from relay.events.catalog import CATALOG, DEFAULT_EVENTS, matches
from relay.events.model import Model
from relay.events.operator import RelayEvent, RelayStreamRef
from relay.events.overlap import Speaker
from relay.events.samples import SAMPLES
from relay.events.transcript import Word

HERE = Path(__file__).parent


def type_name(annotation: Any) -> str:
    """``str``, ``int or null``, ``one of a, b`` … as a reader of JSON would say it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return " \\| ".join(f"`{a}`" for a in arguments)
    if origin in {typing.Union, UnionType}:
        return " or ".join(type_name(a) for a in arguments)
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return "object"
    names = {"str": "string", "datetime": "time", "bool": "boolean", "int": "integer", "float": "number"}
    names |= {
        "timedelta": "duration",
        "AwareDatetime": "time",
        "AnyHttpUrl": "URL",
        "SecretStr": "secret",
        "Path": "path of a file",
        "IPvAnyNetwork": "network",
        "Any": "anything",
    }
    name = getattr(annotation, "__name__", str(annotation))
    if inspect.isclass(annotation) and issubclass(annotation, Provider):
        return "`{provider, options}`"
    return names.get(name, f"[{name}](#{name.lower()})" if inspect.isclass(annotation) else name)


def prose(text: str | None) -> str:
    return " ".join((text or "").split()).replace("``", "`").replace("|", "\\|")


def event_rows(model: type[BaseModel], skip: tuple[str, ...] = ()) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name not in skip:
            yield f"| `{name}` | {type_name(field.annotation)} | {prose(field.description)} |"


def events_page() -> Iterator[str]:
    yield "# Events\n"
    yield "Written by `python -m docs.generate` from the models in `relay/events/`; a test holds it to them.\n"
    yield "Bodies are JSON in UTF-8, times are UTC with milliseconds. What nobody measured is `null`, never made up.\n"
    yield "An endpoint that names no `events` gets those marked ●.\n"
    yield "| | type | meaning | delivery |\n|---|---|---|---|"
    for name, cls in CATALOG.items():
        mark = "●" if matches(name, DEFAULT_EVENTS) else ""
        yield f"| {mark} | [`{name}`](#{name.replace('.', '')}) | {prose(cls.__doc__)} | {cls.delivery} |"
    yield "\n## Around every event\n"
    yield "| key | type | meaning |\n|---|---|---|"
    yield from event_rows(envelope.UtteranceEvent)
    parts: tuple[type[Model], ...] = (envelope.RoomRef, envelope.ParticipantRef, envelope.StreamRef)
    parts += (envelope.UtteranceRef, envelope.Timing, envelope.Source, Word)
    parts += (envelope.RoomEvent, envelope.RoomStreamRef, Speaker, RelayEvent, RelayStreamRef)
    for part in parts:
        yield f"\n### {part.__name__}\n"
        if part.__doc__ and part.__doc__ != Model.__doc__:
            yield prose(part.__doc__) + "\n"
        yield "| key | type | meaning |\n|---|---|---|"
        yield from event_rows(part)
    for name, cls in CATALOG.items():
        yield f"\n## {name}\n"
        yield prose(cls.__doc__) + "\n"
        if (data := section(cls.model_fields["data"].annotation)) is not None and data.model_fields:
            yield "| key of `data` | type | meaning |\n|---|---|---|"
            yield from event_rows(data)
        yield f"\n```json\n{json.dumps(json.loads(SAMPLES[name].model_dump_json()), ensure_ascii=False)}\n```"


def shown(field: FieldInfo) -> str:
    """The default of a key as one would write it in YAML."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if field.is_required():
        return "required"
    return f"`{yaml_value(value)}`"


def yaml_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(yaml_value(v) for v in value) + "]"
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{k}: {yaml_value(v)}" for k, v in value if v != {}) + "}"
    return "{}" if value == {} else str(value)


def duration(value: timedelta) -> str:
    milliseconds = round(value.total_seconds() * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def section(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *typing.get_args(annotation)):
        if inspect.isclass(candidate) and issubclass(candidate, BaseModel):
            return candidate
    return None


def config_rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = section(field.annotation)
        if inner is None or name in {"vad", "stt"}:
            yield f"| `{key}` | {type_name(field.annotation)} | {shown(field)} | {prose(field.description)} |"
        else:
            many = typing.get_origin(field.annotation) is tuple
            yield from config_rows(inner, f"{key}[]." if many else f"{key}.")


def configuration_page() -> Iterator[str]:
    yield (HERE / "reference" / "configuration.head.md").read_text()
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    yield from config_rows(Config, "")


def pages() -> dict[Path, str]:
    return {
        HERE / "reference" / "events.md": "\n".join(events_page()) + "\n",
        HERE / "reference" / "configuration.md": "\n".join(configuration_page()) + "\n",
        **pictures(HERE),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
