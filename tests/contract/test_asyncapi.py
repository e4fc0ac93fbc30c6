"""The AsyncAPI document, against the schema that AsyncAPI publishes."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from relay.contract.documents import asyncapi
from relay.contract.message import cloudevent
from relay.events.catalog import CATALOG
from tests.golden.write import HERE
from tests.support.tools import NPM_CI, prepare, tool

DOCUMENT = asyncapi()


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Draft7Validator:
    """@asyncapi/specs of npm."""
    npm = tool("npm")
    folder = shutil.copytree(HERE / "asyncapi", tmp_path_factory.mktemp("npm") / "asyncapi")
    prepare([npm, *NPM_CI], folder)
    schema = json.loads(Path(folder, "node_modules/@asyncapi/specs/schemas/3.0.0.json").read_text(encoding="utf-8"))
    return Draft7Validator(schema)


def test_the_asyncapi_document_is_valid(official: Draft7Validator) -> None:
    official.validate(DOCUMENT)


@pytest.mark.parametrize("where", [("operations", "standard", "action"), ("channels", "standard", "messages")])
def test_the_official_schema_finds_a_mistake(official: Draft7Validator, where: tuple[str, ...]) -> None:
    wrong: Any = copy.deepcopy(DOCUMENT)
    wrong[where[0]][where[1]][where[2]] = "shout"
    assert not official.is_valid(wrong)


def test_each_format_has_a_message_for_each_type() -> None:
    for name, channel in DOCUMENT["channels"].items():
        assert channel["messages"].keys() == CATALOG.keys()
        assert DOCUMENT["operations"][name]["channel"] == {"$ref": f"#/channels/{name}"}


@pytest.mark.parametrize("name", CATALOG)
def test_every_reference_leads_somewhere_and_examples_are_events(name: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    schema = {**message["payload"], "components": DOCUMENT["components"]}
    golden = json.loads((HERE / "events" / f"{name}.json").read_text())
    assert message["examples"][0]["payload"] == golden
    Draft7Validator(schema).validate(golden)
    assert not Draft7Validator(schema).is_valid({**golden, "data": 1})
    wrapped = DOCUMENT["components"]["messages"][f"{name}.cloudevent"]
    assert wrapped["payload"] == cloudevent(name, "#/components/schemas/{model}")
