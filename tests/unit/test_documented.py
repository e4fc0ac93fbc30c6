"""Docstrings under fields describe them in the JSON Schema."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from relay.documented import Documented, field_docs


class Room(Documented):
    name: str
    """What people
    call it."""
    sid: str


class Part(Documented):
    room: Room
    """Where."""
    count: int = Field(description="said in the field")
    """Said below it."""


class Other(Part):
    room: Room
    extra: int
    """More."""


def properties(model: type[Documented]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = model.model_json_schema()["properties"]
    return found


def test_the_docstring_under_a_field_is_its_description() -> None:
    assert properties(Room)["name"]["description"] == "What people\ncall it."
    assert "description" not in properties(Room)["sid"]


def test_a_field_that_refers_to_another_model_is_described_too() -> None:
    assert properties(Part)["room"] == {"$ref": "#/$defs/Room", "description": "Where."}


def test_a_description_in_the_field_itself_wins() -> None:
    assert properties(Part)["count"]["description"] == "said in the field"


def test_a_subclass_inherits_docstrings_but_not_of_fields_that_it_declares_again() -> None:
    assert dict(field_docs(Other)) == {"count": "Said below it.", "extra": "More."}
    assert "description" not in properties(Other)["room"]


def test_no_source_is_read_to_import_the_configuration() -> None:
    code = "import sys, linecache, relay.config.models; print([name for name in linecache.cache if 'relay' in name])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "[]\n"
