"""Every document of the contract, and the name of its file."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from relay.contract.asyncapi import asyncapi
from relay.contract.json_schema import type_schema, union_schema
from relay.contract.openapi import openapi
from relay.events.samples import SAMPLES

Format = Literal["json-schema", "openapi", "asyncapi"]
Document = dict[str, Any]
Documents = Iterator[tuple[PurePosixPath, Document]]


def _schemas(names: Sequence[str]) -> Documents:
    yield PurePosixPath("events.json"), union_schema(names)
    for name in names:
        yield PurePosixPath(f"types/{name}.json"), type_schema(name)


def _openapi(names: Sequence[str]) -> Documents:
    yield PurePosixPath("openapi.json"), openapi(names)


def _asyncapi(names: Sequence[str]) -> Documents:
    yield PurePosixPath("asyncapi.json"), asyncapi(names)


FORMATS: Mapping[Format, Callable[[Sequence[str]], Documents]] = {
    "json-schema": _schemas,
    "openapi": _openapi,
    "asyncapi": _asyncapi,
}
"""Format → its documents about these event types, with the names of their files; the one about all types first."""


def examples(names: Sequence[str]) -> Documents:
    """A body of each type, and the name of its file."""
    for name in names:
        yield PurePosixPath(f"examples/{name}.json"), SAMPLES[name].model_dump(mode="json")


def written(document: Document | list[Document]) -> str:
    """The text of a file with this document."""
    return json.dumps(document, indent=2) + "\n"
