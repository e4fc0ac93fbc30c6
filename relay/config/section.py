"""The base class of every section of config.yaml."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of config.yaml. An unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
