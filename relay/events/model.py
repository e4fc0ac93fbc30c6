"""The base of all wire models: strict, frozen, no unknown fields, UTC times with milliseconds."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, PlainSerializer


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Instant = Annotated[AwareDatetime, PlainSerializer(_iso, return_type=str, when_used="json")]
"""A UTC time, written as ``2026-11-21T10:15:05.482Z``."""


class Model(BaseModel):
    """The base of every wire model. The docstring under a field is its description in the JSON Schema."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)
