"""What an endpoint gets of an event."""

import json

import pytest

from relay.config.endpoint import Include
from relay.dispatch.projection import Projections, Shape, project
from relay.events.catalog import parse
from relay.events.samples import SAMPLES
from tests.support.builders import a_record

EVERY = [pytest.param(name, id=name) for name in SAMPLES]


def body_of(name: str) -> bytes:
    return SAMPLES[name].model_dump_json().encode()


@pytest.mark.parametrize("name", EVERY)
def test_everything_included_is_the_same_object(name: str) -> None:
    body = body_of(name)
    assert project(body, Include()) is body


@pytest.mark.parametrize("name", EVERY)
def test_what_is_left_is_still_what_its_type_says(name: str) -> None:
    projected = project(body_of(name), Include(text=False, words=False, attributes=False))
    event = json.loads(projected)
    parse(projected)
    assert not event["data"].get("text")
    assert not event["data"].get("words")
    assert not event.get("participant", {}).get("attributes")


def test_without_words_the_text_stays() -> None:
    event = json.loads(project(body_of("transcript.final"), Include(words=False)))
    assert event["data"]["words"] == []
    assert event["data"]["text"]


def test_without_text_the_words_go_too() -> None:
    before = json.loads(body_of("transcript.final"))
    event = json.loads(project(body_of("transcript.final"), Include(text=False)))
    assert before["data"]["words"]
    assert (event["data"]["text"], event["data"]["words"]) == ("", [])
    assert event["timing"] == before["timing"]


def event_with(**attributes: str) -> bytes:
    event = SAMPLES["stream.started"].model_copy(deep=True)
    event.participant.attributes.clear()  # type: ignore[attr-defined]
    event.participant.attributes.update(attributes)  # type: ignore[attr-defined]
    return event.model_dump_json().encode()


def test_attributes_are_chosen_by_name() -> None:
    body = event_with(tenant="acme", role="caller", bio="x" * 100)
    chosen = json.loads(project(body, Include(attributes=("role", "tenant", "absent"))))
    assert chosen["participant"]["attributes"] == {"tenant": "acme", "role": "caller"}
    assert json.loads(project(body, Include(attributes=())))["participant"]["attributes"] == {}


def test_an_event_that_has_nothing_to_lose_is_the_same_object() -> None:
    body = body_of("speech.started")
    assert project(body, Include(text=False, words=False)) is body
    named = event_with(tenant="acme")
    assert project(named, Include(attributes=("tenant",))) is named


def test_the_same_bytes_every_time_and_in_every_process() -> None:
    include = Include(text=False)
    assert project(body_of("utterance.completed"), include) == project(body_of("utterance.completed"), include)


def test_projections_are_shared_and_bounded() -> None:
    projections, shape = Projections(), Shape(Include(text=False))
    record = a_record(1, "transcript.final")
    first = projections.of(record, shape)
    assert projections.of(record, Shape(Include(text=False))) is first
    for sequence in range(2, 3000):
        projections.of(a_record(sequence, "transcript.final"), shape)
    assert projections.of(record, shape) == first
    assert len(projections._done) <= 1024
