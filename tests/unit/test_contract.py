"""The documents of the contract: valid, true to what is sent, and never less than what was published."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from relay.config.endpoint import Endpoint, Include, Retry
from relay.contract.documents import openapi
from relay.contract.json_schema import type_schema, union_schema
from relay.contract.message import ALWAYS, HEADERS, answers
from relay.dispatch.endpoint.route import Route
from relay.dispatch.http.outcome import Failed
from relay.dispatch.policy import Disable, RetryAt
from relay.dispatch.projection import project, to_cloudevent
from relay.events.catalog import CATALOG
from relay.events.samples import SAMPLES
from relay.outbox.records import record
from tests.golden.write import HERE, PUBLISHED
from tests.support.cli import SECRET
from tests.support.compatibility import breaks
from tests.support.dispatch.verdicts import decide

UNION = union_schema()
OPENAPI = openapi()
WEBHOOKS = OPENAPI["webhooks"]

Json = dict[str, Any]


def golden(name: str) -> Json:
    body: Json = json.loads((HERE / "events" / f"{name}.json").read_text())
    return body


def validator(schema: Json) -> Draft202012Validator:
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


ABSENT = object()


def mutants(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Where, and what else stands there: each key and item in turn with a type that no event has there, or absent."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key), ["a list"] if isinstance(inner, dict) else {"an": "object"}
        if isinstance(key, str) and at != ("participant", "attributes"):
            yield (*at, key), ABSENT
        yield from mutants(inner, (*at, key))


def mutated(body: Json, at: tuple[str | int, ...], value: Any) -> Json:
    changed = copy.deepcopy(body)
    inside: Any = changed
    for key in at[:-1]:
        inside = inside[key]
    if value is ABSENT:
        del inside[at[-1]]
    else:
        inside[at[-1]] = value
    return changed


def test_the_events_still_keep_what_their_api_version_promised() -> None:
    found = breaks(json.loads(PUBLISHED.read_text()), UNION)
    assert not found, "receivers would break: undo it, or begin a new API_VERSION; see CONTRIBUTING.md"


def test_what_is_published_is_up_to_date() -> None:
    assert json.loads(PUBLISHED.read_text()) == UNION, "run: make golden"


@pytest.mark.parametrize("name", CATALOG)
def test_an_event_is_what_its_schema_says(name: str) -> None:
    schema = type_schema(name)
    Draft202012Validator.check_schema(schema)
    for each in (schema, UNION):
        validator(each).validate(golden(name))


@pytest.mark.parametrize("name", CATALOG)
def test_a_schema_refuses_every_other_type_and_missing_key(name: str) -> None:
    body, schema = golden(name), validator(type_schema(name))
    accepted = [at for at, value in mutants(body) if schema.is_valid(mutated(body, at, value))]
    assert not [at for at in accepted if not came_later(at)]
    assert len(list(mutants(body))) > 8


def came_later(at: tuple[str | int, ...]) -> bool:
    """Whether events of an earlier release lack this key."""
    return at[-1] in ("realtime", "revises", "listened_until") or (at[-1] == "confidence" and "words" in at)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("speech.ended", ("data", "reason")),
        ("utterance.completed", ("data", "outcome")),
        ("source.failed", ("data", "detector")),
        ("vad.speech_started", ("timing", "timed_by")),
        ("ping", ("type",)),
        ("ping", ("api_version",)),
        ("speech.started", ("timestamp",)),
    ],
)
def test_a_schema_refuses_an_unknown_value(name: str, at: tuple[str, ...]) -> None:
    body = mutated(golden(name), at, "surprise")
    assert not validator(type_schema(name)).is_valid(body)
    assert not validator(UNION).is_valid(body)


@pytest.mark.parametrize("name", CATALOG)
def test_a_schema_accepts_keys_that_come_later(name: str) -> None:
    body = golden(name)
    for inside in (body, body["data"], body.get("timing", {})):
        inside["added_later"] = 1
    validator(type_schema(name)).validate(body)
    validator(UNION).validate(body)


def test_every_type_and_enumeration_has_a_title_and_a_description() -> None:
    parts = UNION["$defs"]
    assert {part["title"] for part in parts.values()} == parts.keys()
    events = {model.__name__ for model in CATALOG.values()}
    lists = {name for name, part in parts.items() if "enum" in part}
    assert lists >= {"Detector", "SpeechEnd", "Outcome", "StreamEnd", "SourceFailure"}
    assert not [name for name in events | lists if not parts[name].get("description")]


def test_the_openapi_document_is_valid_and_has_every_type() -> None:
    OpenAPIV31SpecValidator(OPENAPI).validate()
    assert WEBHOOKS.keys() == CATALOG.keys()


@pytest.mark.parametrize("format_", ["standard", "cloudevents"])
@pytest.mark.parametrize("signing", ["standard", "livekit", "none"])
def test_the_openapi_document_describes_every_request(format_: str, signing: str) -> None:
    keys = {"secret": SECRET, "livekit_key": {"api_key": "k", "api_secret": "s" * 32}}
    crm = {"name": "crm", "url": "https://crm.example.com/", "format": format_, "signing": signing, **keys}
    sample = record(SAMPLES["speech.started"])  # type: ignore[arg-type]  # it is one of a stream
    sent = {name.decode(): value for name, value in Route(Endpoint.model_validate(crm)).headers(sample, b"{}", 0, 0)}
    assert sent["content-type"].decode() in WEBHOOKS["speech.started"]["post"]["requestBody"]["content"]
    schemes = {each["name"] for each in OPENAPI["components"]["securitySchemes"].values()}
    assert sent.keys() - {"content-type", "user-agent", "accept-encoding"} <= HEADERS.keys() | schemes
    assert set(ALWAYS) <= sent.keys()


@pytest.mark.parametrize("name", CATALOG)
def test_an_event_in_a_cloudevent_is_what_the_document_says(name: str) -> None:
    content = WEBHOOKS[name]["post"]["requestBody"]["content"]["application/cloudevents+json"]["schema"]
    schema = validator({**content, "components": OPENAPI["components"]})
    body: Json = json.loads(to_cloudevent(SAMPLES[name].model_dump_json().encode()))
    schema.validate(body)
    assert not schema.is_valid({**body, "type": "another"})
    assert not schema.is_valid({**body, "data": {**body["data"], "id": 1}})
    assert not schema.is_valid({**body, "specversion": "0.3"})


@pytest.mark.parametrize("name", ["transcript.final", "utterance.completed", "turn.completed"])
def test_an_event_without_its_excluded_parts_is_still_what_its_schema_says(name: str) -> None:
    body = project(SAMPLES[name].model_dump_json().encode(), Include(text=False, words=False, attributes=False))
    validator(type_schema(name)).validate(json.loads(body))


def test_the_documented_answers_are_those_that_are_acted_on() -> None:
    def verdict(status: int, after: str | None) -> object:
        failed = Failed("status", 1.0, status=status, retry_after=after)
        return decide(failed, attempts=0, now_ms=0, retry=Retry(), dice=lambda: 0.5)

    assert answers().keys() == {"2XX", "410", "429", "503", "default"}
    assert isinstance(verdict(410, None), Disable)
    for status in (429, 503):
        asked = verdict(status, "99999")
        assert isinstance(asked, RetryAt)
        assert (asked.at, asked.asked) == (3_600_000, True)
        assert "Retry-After" in json.dumps(OPENAPI["components"]["responses"])
        assert "1 h" in answers()[str(status)]
    assert isinstance(verdict(500, "99999"), RetryAt)
    assert "1 s, 5 s, 30 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h" in answers()["default"]
