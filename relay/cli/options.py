"""Options that several commands share, and their values."""

import os
import shutil
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.telemetry.logs import LogFormat, LogLevel

if TYPE_CHECKING:
    from relay.config.models import Config

NAME = "speech-relay"
API: ContextVar[str | None] = ContextVar("api", default=None)
"""The URL of ``--api``; None if the command works on the log."""
DEFAULT_CONFIG = Path("config.yaml")


def _without_blanks(path: Path) -> Path:
    return Path(str(path).strip())  # a variable may end with a line break


ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        envvar="SPEECH_RELAY_CONFIG",
        callback=_without_blanks,
        readable=False,  # who reads the file says more about one that cannot be read
        help="The configuration file.",
    ),
]
LogFormatOption = Annotated[LogFormat, typer.Option(help="auto: human on a terminal, else json.")]
LogLevelOption = Annotated[LogLevel, typer.Option(help="The lowest level that is logged.")]
SecretOption = Annotated[
    str | None,
    typer.Option(
        envvar="WEBHOOK_SECRET",
        help="Verify with this whsec_… (or several, with blanks between) and read no configuration. "
        "As an option, others on this machine can see it: prefer the variable, or --secret-file.",
    ),
]
SecretFileOption = Annotated[
    Path | None,
    typer.Option(envvar="WEBHOOK_SECRET_FILE", help="The same, read from a file or a pipe; wins over --secret."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]


class ConfigSource:
    """config.yaml, the ``.env`` beside it, and the variables with which this process was started.

    ``config.yaml`` is not needed if the environment itself names the endpoints.
    """

    def __init__(self, path: Path, *, exports: bool = True) -> None:
        """``exports``: put the variables of ``.env`` into this process, where plugins look for keys."""
        # a copy from before .env was exported: a changed line of .env must not conflict with its old value
        self._environ = dict(os.environ)
        absent = path == DEFAULT_CONFIG and not path.exists()
        self._file = None if absent and self._environ.get("SPEECH_RELAY__ENDPOINTS") else path
        self._exports = exports

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it is read from."""
        from relay.config.environment import dotenv_beside

        dotenv = dotenv_beside(self._file)
        return (self._file, dotenv) if self._file else (dotenv,)

    def load(self) -> "Config":
        """Read it. Raises ``ConfigError``."""
        from relay.config.load import load

        config = load(self._file, environ=self._environ)
        if self._exports:
            variables = self.variables()
            os.environ.update(variables)
            for name in self._environ.keys() - variables.keys():
                os.environ.pop(name, None)
        return config

    def variables(self) -> Mapping[str, str]:
        """The variables with which this process was started, and those of ``.env``. Raises ``ConfigError``."""
        from relay.config.environment import exported

        return exported(self._file, self._environ)


def misuse(text: str) -> typer.Exit:
    """Say on standard error what is wrong with the options together; returns the exit to raise, with code 2."""
    typer.echo(f"Error: {text}", err=True)
    return typer.Exit(2)


def program_name() -> str:
    """The program's name in commands to copy: its path if the name alone would not find it."""
    typed = Path(sys.argv[0])
    if typed.name == NAME and shutil.which(NAME) is None:
        return str(typed)
    return NAME


def load_config(path: Path) -> "Config":
    """The current configuration. Raises ``ConfigError``."""
    if API.get() is not None:
        from relay.errors import ConfigError

        raise ConfigError("this works on the log alone: leave out --api, and run it where the log is")
    return ConfigSource(path).load()
