"""CloudEvents as the official SDK reads them."""

import json
from typing import Any
from urllib.parse import unquote

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat

from relay.config.endpoint import Include
from relay.dispatch.projection import CLOUDEVENTS_CONTENT_TYPE, Projections, Shape, to_cloudevent
from relay.events.samples import SAMPLES
from relay.events.speech import TranscriptFinal
from relay.outbox.records import record

FINAL = TranscriptFinal.model_validate_json(SAMPLES["transcript.final"].model_dump_json())


def body_of(name: str, **changes: Any) -> bytes:
    return SAMPLES[name].model_copy(update=changes).model_dump_json().encode()


def parsed(body: bytes) -> BaseCloudEvent:
    """Raises what the SDK has against it: attributes that are missing, misnamed or of another type."""
    return from_structured_event(HTTPMessage({"content-type": CLOUDEVENTS_CONTENT_TYPE}, body), JSONFormat())


@pytest.mark.parametrize("name", SAMPLES)
def test_the_official_sdk_reads_every_event(name: str) -> None:
    event = parsed(to_cloudevent(body_of(name)))
    assert (event.get_id(), event.get_type()) == (SAMPLES[name].id, name)
    assert event.get_time() == SAMPLES[name].timestamp
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == json.loads(body_of(name))


def test_an_event_of_a_participant() -> None:
    event = parsed(to_cloudevent(body_of("transcript.final")))
    assert (event.get_source(), event.get_subject()) == ("/speech-relay/rooms/support-42", "alice")
    assert event.get_extension("partitionkey") == "str_01KAJ8Q6T5ZV8K7W0C9Y4M2N3B"
    assert event.get_extension("sequence") == "0000000008"


def test_an_event_of_a_room_has_no_subject_and_one_of_the_relay_has_no_room() -> None:
    assert parsed(to_cloudevent(body_of("overlap.started"))).get_subject() is None
    dead = parsed(to_cloudevent(body_of("delivery.dead")))
    assert (dead.get_source(), dead.get_subject()) == ("/speech-relay", "crm")
    ping = parsed(to_cloudevent(body_of("ping")))
    assert "sequence" not in ping.get_attributes()


def test_a_rooms_name_may_be_anything() -> None:
    name = 'Büro 1/2?"#\n'
    event = SAMPLES["overlap.started"].model_dump(mode="json")
    source = parsed(to_cloudevent(json.dumps(event | {"room": {"sid": "RM_x", "name": name}}).encode())).get_source()
    assert source.isascii()
    assert unquote(source.removeprefix("/speech-relay/rooms/")) == name


def test_places_in_a_stream_compare_as_text() -> None:
    texts = []
    for sequence in (9, 10, 123_456):
        event = json.loads(body_of("speech.started"))
        event["stream"]["sequence"] = sequence
        texts.append(parsed(to_cloudevent(json.dumps(event).encode())).get_extension("sequence"))
    assert texts == sorted(texts)


def test_the_bytes_are_the_same_on_every_attempt_and_what_is_left_out_stays_out() -> None:
    shape = Shape(Include(text=False), "cloudevents")
    body = Projections().of(record(FINAL), shape)
    assert Projections().of(record(FINAL), shape) == body
    data = parsed(body).get_data()
    assert isinstance(data, dict)
    assert (data["data"]["text"], data["data"]["words"]) == ("", [])


def test_shapes_are_not_taken_for_each_other() -> None:
    projections, final = Projections(), record(FINAL)
    shapes = [Shape(Include(text=text), form) for text in (True, False) for form in ("standard", "cloudevents")]
    assert len({projections.of(final, shape) for shape in shapes}) == 4
    assert projections.of(final, Shape(Include())) is final.body
