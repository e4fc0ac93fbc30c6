"""Options that several commands share, and what they stand for."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.telemetry.logs import LogFormat, LogLevel

if TYPE_CHECKING:
    from relay.config.models import Config

DEFAULT_CONFIG = Path("config.yaml")

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="SPEECH_RELAY_CONFIG", help="The configuration file.")
]
LogFormatOption = Annotated[LogFormat, typer.Option(help="auto: human on a terminal, else json.")]
LogLevelOption = Annotated[LogLevel, typer.Option(help="The least that is logged.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]


def load_config(path: Path, flags: Mapping[str, Any] | None = None) -> "Config":
    """Load the configuration and put the variables of its ``.env`` into this process, where plugins look for keys.

    No ``config.yaml`` is needed where the environment itself names the endpoints. Raises ``ConfigError``.
    """
    from relay.config.environment import read_environment
    from relay.config.load import load

    environ = dict(os.environ)
    absent = path == DEFAULT_CONFIG and not path.exists()
    file = None if absent and environ.get("SPEECH_RELAY__ENDPOINTS") else path
    config = load(file, environ=environ, flags=flags or {})
    os.environ.update(read_environment(file, environ).values)
    return config
