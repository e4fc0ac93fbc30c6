"""The config.yaml that ``init`` writes. The one at the project's root is its default rendering."""

from importlib.resources import files
from string import Template

from relay.config.endpoint import Endpoint, secret_variable

DEFAULT_NAME = "receiver"
DEFAULT_URL = "http://127.0.0.1:8791/"
"""Where ``speech-relay listen`` listens."""

_OPTIONS = {"deepgram": "{provider: deepgram, options: {model: nova-3, language: en}}"}


class _Percent(Template):
    delimiter = "%"  # the file uses $ itself


def render(*, name: str = DEFAULT_NAME, url: str = DEFAULT_URL, stt: str = "deepgram") -> str:
    """Render a commented config.yaml with one endpoint. Raises pydantic's ``ValidationError`` for a bad one."""
    endpoint = Endpoint(name=name, url=url)
    template = files("relay.config").joinpath("template.yaml").read_text(encoding="utf-8")
    return _Percent(template).substitute(
        name=endpoint.name,
        url=endpoint.url,
        variable=secret_variable(endpoint.name),
        stt=_OPTIONS.get(stt, f"{{provider: {stt}}}"),
    )
