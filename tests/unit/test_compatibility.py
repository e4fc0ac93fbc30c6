"""Which changes of the events break their receivers."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from relay.contract.json_schema import union_schema
from tests.support.compatibility import Schema, breaks

PUBLISHED = union_schema()

Change = Callable[[dict[str, Any]], Any]
"""Changes the definitions in place."""


def changed(change: Change) -> list[str]:
    new: Schema = copy.deepcopy(PUBLISHED)
    change(new["$defs"])
    return breaks(PUBLISHED, new)


def renamed(keys: dict[str, Any], old: str, new: str) -> None:
    keys[new] = keys.pop(old)


TEXT = {"type": "string"}
BREAKS: dict[str, Change] = {
    "a key is removed": lambda defs: defs["SpeechEndedData"]["properties"].pop("flaps"),
    "a key is renamed": lambda defs: renamed(defs["SpeechEndedData"]["properties"], "flaps", "pauses"),
    "a key deep inside is removed": lambda defs: defs["Word"]["properties"].pop("start_ms"),
    "a key may be missing": lambda defs: defs["Timing"]["required"].remove("reliable"),
    "a key may be null": lambda defs: defs["RoomRef"]["properties"].update(name={"anyOf": [TEXT, {"type": "null"}]}),
    "a key is never null": lambda defs: defs["Timing"]["properties"].update(media_end_ms={"type": "integer"}),
    "a new key is required": lambda defs: (
        defs["RoomRef"]["properties"].update(region=TEXT),
        defs["RoomRef"]["required"].append("region"),
    ),
    "an optional key is required": lambda defs: defs["Source"]["required"].append("realtime"),
    "a number becomes a text": lambda defs: defs["SpeechEndedData"]["properties"].update(flaps=TEXT),
    "an integer becomes a number": lambda defs: defs["VadSpeechStartedData"]["properties"].update(
        speech_ms={"type": "number"}
    ),
    "items change their type": lambda defs: defs["UtteranceCompletedData"]["properties"]["speaker_ids"].update(
        items={"type": "integer"}
    ),
    "attributes change their type": lambda defs: defs["ParticipantRef"]["properties"]["attributes"].pop(
        "additionalProperties"
    ),
    "a time is no longer one": lambda defs: defs["SpeechEnded"]["properties"]["timestamp"].pop("format"),
    "the lowest number falls": lambda defs: defs["StreamRef"]["properties"]["sequence"].update(minimum=0),
    "a value is removed": lambda defs: defs["SpeechEnd"]["enum"].remove("muted"),
    "a value is renamed": lambda defs: defs["SpeechEnd"].update(
        enum=[value.upper() for value in defs["SpeechEnd"]["enum"]]
    ),
    "a list becomes any text": lambda defs: defs["SpeechEnd"].pop("enum"),
    "any text becomes a list": lambda defs: defs["RoomRef"]["properties"]["name"].update(enum=["a"]),
    "api_version changes": lambda defs: defs["Ping"]["properties"]["api_version"].update(const="2030-01-01"),
}
GROWS: dict[str, Change] = {
    "nothing changes": lambda defs: None,
    "a key is added": lambda defs: defs["RoomRef"]["properties"].update(region=TEXT),
    "a value is added": lambda defs: defs["SpeechEnd"]["enum"].append("kicked"),
    "a description changes": lambda defs: defs["SpeechEnd"].update(description="Why it ended."),
    "a part is renamed": lambda defs: (
        defs["SpeechEnded"]["properties"].update(
            data={"allOf": [{"$ref": "#/$defs/Renamed"}], "description": "…"},
        )
        or defs.update(Renamed=defs["SpeechEndedData"])
    ),
    "the lowest number rises": lambda defs: defs["Ping"]["properties"]["id"].update(minLength=4),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_a_receiver_is_found(name: str) -> None:
    found = changed(BREAKS[name])
    assert found
    assert all(": " in line for line in found)


@pytest.mark.parametrize("name", GROWS)
def test_what_only_grows_breaks_nothing(name: str) -> None:
    assert changed(GROWS[name]) == []


def test_an_event_type_may_be_added_and_not_removed() -> None:
    fewer = union_schema([each for each in union_schema.__defaults__[0] if each != "ping"])  # type: ignore[index]
    assert breaks(fewer, PUBLISHED) == []
    assert breaks(PUBLISHED, fewer) == ["ping: removed"]


def test_a_break_is_named_by_type_and_key() -> None:
    assert changed(BREAKS["a key deep inside is removed"]) == [
        "transcript.final.data.words[].start_ms: removed",
        "utterance.completed.data.words[].start_ms: removed",
    ]
