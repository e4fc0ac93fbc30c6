"""What every part of config.yaml is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of config.yaml. An unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
