"""Every type that leaves the system is registered, has a sample, a golden file, and reads back as it was."""

import importlib
import json
import pkgutil
from pathlib import Path

import pytest
from pydantic import ValidationError

import relay.events
from relay.events.catalog import CATALOG, DEFAULT_EVENTS, matches, parse, unknown_patterns
from relay.events.envelope import Delivery, Event
from relay.events.samples import SAMPLES

GOLDEN = Path(__file__).parent.parent / "golden" / "events"


def concrete_events() -> dict[str, type[Event]]:
    """Every Event class with a type of its own in any module below relay.events, registered or not."""
    for module in pkgutil.iter_modules(relay.events.__path__, "relay.events."):
        importlib.import_module(module.name)
    found: dict[str, type[Event]] = {}
    todo: list[type[Event]] = [Event]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if isinstance(name := cls.model_fields["type"].default, str):
            found[name] = cls
    return found


DISCOVERED = sorted(concrete_events())


def test_every_event_class_is_registered() -> None:
    assert concrete_events() == dict(CATALOG)


@pytest.mark.parametrize("name", DISCOVERED)
def test_event_matches_its_golden_file_and_round_trips(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_text()
    sample = SAMPLES[name]
    assert json.loads(sample.model_dump_json()) == json.loads(golden)
    assert list(json.loads(sample.model_dump_json())) == list(json.loads(golden)), (
        "the order of keys is part of the wire"
    )
    assert parse(golden) == sample


@pytest.mark.parametrize("name", DISCOVERED)
def test_event_refuses_what_its_type_does_not_say(name: str) -> None:
    body = json.loads((GOLDEN / f"{name}.json").read_text())
    with pytest.raises(ValidationError):
        parse(json.dumps({**body, "surprise": 1}))
    with pytest.raises(ValidationError):
        parse(json.dumps({**body, "timestamp": 1}))


@pytest.mark.parametrize("name", DISCOVERED)
def test_every_field_says_what_it_is_or_is_named_like_it(name: str) -> None:
    """A number needs its unit, in its name or in its description."""
    data = CATALOG[name].model_fields["data"].annotation
    assert data is not None
    for key, prop in data.model_json_schema().get("properties", {}).items():
        numeric = json.dumps(prop)
        if '"number"' in numeric or '"integer"' in numeric:
            assert key.endswith("_ms") or "description" in prop or key == "flaps", f"{name}.{key} has no unit"


def test_no_golden_file_is_left_over() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == DISCOVERED


def test_only_interims_may_be_dropped_for_newer_ones() -> None:
    assert [name for name, cls in CATALOG.items() if cls.delivery is Delivery.LATEST] == ["transcript.interim"]


def test_times_are_utc_with_milliseconds() -> None:
    body = json.loads(SAMPLES["speech.started"].model_dump_json())
    assert body["timing"]["detected_at"] == "2026-11-21T10:15:05.240Z"


def test_patterns() -> None:
    assert matches("speech.started", DEFAULT_EVENTS)
    assert not matches("vad.speech_started", DEFAULT_EVENTS)
    assert unknown_patterns(("speech.*", "speach.*", "*")) == ("speach.*",)
