"""Samples of events: dated now, in a room marked as a sample, and sent to one endpoint at once."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import typer

from relay.cli.log import CLOCK, meant
from relay.cli.output.formatting import plain, write
from relay.clock import epoch_ms
from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.route import post_sample
from relay.dispatch.http.outcome import Delivered, Fault, Outcome
from relay.errors import ConfigError
from relay.events.catalog import CATALOG
from relay.events.envelope import Event, RoomEvent, StreamEvent
from relay.events.operator import RelayEvent
from relay.events.samples import SAMPLES
from relay.ids import event_id, new_id
from relay.outbox.records import Record, record


def fresh(event_type: str, *, endpoint: str, room: str | None = None, participant: str | None = None) -> Record:
    """A sample of this type with new ids and times that end now. Its room and people are called samples.

    ``room`` and ``participant`` (an identity) replace the sample's. Raises ``ConfigError`` for an unknown type.
    """
    if event_type not in SAMPLES:
        raise ConfigError(unknown_type(event_type))
    sample = SAMPLES[event_type]
    now = CLOCK.now_ms()
    later = timedelta(milliseconds=now - epoch_ms(_emitted_at(sample)))
    fields: dict[str, Any] = _moved(sample.model_dump(), later)
    if "stream" in fields:
        fields["stream"]["id"] = new_id("str")
        fields["id"] = event_id(fields["stream"]["id"], fields["stream"]["sequence"])
    else:
        fields["id"] = new_id("evt")
        fields["data"]["endpoint"] = endpoint
    if fields.get("utterance"):
        fields["utterance"]["id"] = new_id("utt")
    if "overlap_id" in fields["data"]:
        fields["data"]["overlap_id"] = new_id("ovl")
    fields = _said_to_be_samples(fields)
    if room is not None and "room" in fields:
        fields["room"]["name"] = room
    if participant is not None and "participant" in fields:
        fields["participant"]["identity"] = participant
    event = type(sample).model_validate(fields)
    if isinstance(event, StreamEvent | RoomEvent | RelayEvent):
        return record(event)
    body = event.model_dump_json().encode()
    return Record(0, event.id, event.type, event.delivery, None, None, now, None, body)


def _emitted_at(sample: Event) -> datetime:
    return sample.timing.emitted_at if isinstance(sample, StreamEvent | RoomEvent) else sample.timestamp


def _said_to_be_samples(value: Any, *, room: bool = False) -> Any:
    """The same with a room and people that cannot be mistaken for real ones."""
    match value:
        case dict():
            named = {key: _said_to_be_samples(each, room=key == "room") for key, each in value.items()}
            if room or named.get("identity"):
                marked = {"name": f"Sample {named['name']}"} if named.get("name") else {}
                named |= {"name": f"sample-{named['name']}", "sid": "RM_sample"} if room else marked
            if named.get("identity"):
                named["identity"] = f"sample-{named['identity']}"
            return named
        case tuple():
            return tuple(_said_to_be_samples(each) for each in value)
        case _:
            return value


def _moved(value: Any, by: timedelta) -> Any:
    match value:
        case datetime():
            return value + by
        case dict():
            return {key: _moved(each, by) for key, each in value.items()}
        case tuple():
            return tuple(_moved(each, by) for each in value)
        case _:
            return value


def unknown_type(event_type: str) -> str:
    """Says that no event type has this name, and which one was probably meant."""
    return f"no event type is called {event_type}; {meant(event_type, tuple(CATALOG))}"


def send(endpoint: Endpoint, record: Record) -> Outcome:
    """POST it once, signed and marked as a sample, after applying the endpoint's ``include``."""
    return asyncio.run(post_sample(endpoint, record, CLOCK.now_ms()))


def report(endpoint: str, event_id: str, event_type: str, outcome: Outcome, *, as_json: bool) -> int:
    """Print the response; returns the exit code: 0 if it was accepted."""
    taken = isinstance(outcome, Delivered)
    why = f"this machine's own fault: {outcome.detail}" if isinstance(outcome, Fault) else outcome.reason
    if as_json:
        write(
            {
                "endpoint": endpoint,
                "event_id": event_id,
                "type": event_type,
                "taken": taken,
                "stage": outcome.stage,
                "status": outcome.status,
                "reason": why or None,
                "elapsed_ms": round(outcome.elapsed_ms, 1),
            }
        )
    elif taken:
        typer.echo(f"{endpoint} took {event_type} {event_id}: {outcome.status} after {outcome.elapsed_ms:.0f} ms")
    else:
        typer.echo(f"{endpoint} did not take {event_type} {event_id}: {plain(why)}", err=True)
    return 0 if taken else 1
