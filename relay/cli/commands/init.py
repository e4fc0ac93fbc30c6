"""``speech-relay init``: a working configuration, and the secrets that it needs."""

import os
import re
import shlex
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer
from pydantic import ValidationError

from relay.capture.plugins import installing, is_installed
from relay.cli.identity import is_local
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, program_name
from relay.config.endpoint import Endpoint, secret_variable
from relay.config.environment import dotenv_beside, read_dotenv, read_environment
from relay.config.load import load, unset_secrets
from relay.config.models import Config
from relay.config.problems import Mistakes, in_words
from relay.dispatch.signing import new_secret
from relay.errors import ConfigError
from relay.private_files import write_private

_PROVIDER_KEYS = {
    "assemblyai": "ASSEMBLYAI_API_KEY",
    "cartesia": "CARTESIA_API_KEY",
    "deepgram": "DEEPGRAM_API_KEY",
    "openai": "OPENAI_API_KEY",
}
_PLUGINS = "https://docs.livekit.io/agents/models/stt"
DEFAULT_NAME = "receiver"
DEFAULT_URL = "http://127.0.0.1:8791/"
"""Where ``speech-relay listen`` listens."""

_OPTIONS = {"deepgram": "{provider: deepgram, options: {model: nova-3, language: en}}"}


def init(
    config: ConfigOption = DEFAULT_CONFIG,
    url: Annotated[
        str | None, typer.Option(help="Where webhooks go; without it, to `speech-relay listen` on this machine.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The endpoint's name.", show_default="receiver")] = None,
    stt: Annotated[
        str | None,
        typer.Option(help="deepgram, moonshine, none, or any LiveKit STT plugin.", show_default="deepgram"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a config.yaml. .env keeps its lines.")] = False,
) -> None:
    """Write a commented config.yaml, and make the secrets that its endpoints need, in .env.

    A config.yaml that was edited is never changed without --force: only missing secrets are made. Options that it
    would have to be changed for are an error then (exit code 1).
    """
    given = {option: value for option, value in (("--url", url), ("--name", name), ("--stt", stt)) if value is not None}
    text = _rendered(
        DEFAULT_NAME if name is None else name,
        DEFAULT_URL if url is None else url,  # an empty one is a variable that is not set, and no wish for the default
        "deepgram" if stt is None else stt,
    )
    if dotenv_beside(config).exists():
        read_dotenv(dotenv_beside(config))  # a mistake in it is an error before anything is written
    existing = _read(config)
    if existing is None or force or (given and existing == render()):
        try:
            config.parent.mkdir(parents=True, exist_ok=True)
            write_private(config, text)
        except OSError as error:
            raise ConfigError(f"{config} cannot be written: {error.strerror}") from None
        typer.echo(f"Wrote {config}.")
        if force and existing not in (None, text, render()):
            unset = [option for option in ("--url", "--name", "--stt") if option not in given]
            defaults = f"; {', '.join(unset)} have their defaults" if unset else ""
            typer.echo(f"What it said before is gone{defaults}.")
    elif given and existing != text:
        typer.echo(
            f"{config} exists, and {', '.join(given)} would change it: nothing was written. Replace it with --force, "
            "write another file with --config PATH, or edit it.",
            err=True,
        )
        raise typer.Exit(1)
    else:
        typer.echo(f"{config} exists and was not changed (--force replaces it).")
    _make_secrets(config)


def _read(config: Path) -> str | None:
    """The file's text; None if it does not exist, empty if it is not text."""
    try:
        return config.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError):
        return ""
    except OSError as error:
        raise ConfigError(f"{config} cannot be written: {error.strerror}") from None


def _rendered(name: str, url: str, stt: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", stt):
        raise typer.BadParameter("must be the name of a LiveKit plugin, such as deepgram", param_hint="--stt")
    try:
        return render(name=name, url=url, stt=stt)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        told = in_words(wrong["type"], wrong.get("ctx", {}), wrong["msg"])
        raise typer.BadParameter(told, param_hint=f"--{wrong['loc'][0]}") from None


def _make_secrets(config: Path) -> None:
    """Create the missing signing secrets, and list the remaining steps, as the file requires them."""
    dotenv = dotenv_beside(config)
    missing = unset_secrets(config, os.environ)
    made = add_variables(dotenv, {variable: new_secret() for variable in missing})
    for variable, endpoint in missing.items():
        if variable in made:
            typer.echo(
                f"Made a signing secret for endpoint {endpoint}: {variable} in {dotenv}; its receiver needs it too."
            )
    option = "" if config == DEFAULT_CONFIG else f" --config {shlex.quote(str(config))}"
    try:
        loaded = load(config, environ=os.environ)
    except Mistakes as mistakes:
        typer.echo(f"\nNext: correct these, and run `speech-relay init{option}` again.\n{mistakes}")
        raise typer.Exit(1) from None
    wanted = _wanted(loaded)
    add_variables(dotenv, dict.fromkeys(wanted, ""))
    unset = [variable for variable in wanted if variable not in read_environment(config, os.environ).values]
    typer.echo("\n".join(["\nNext:", *(f"  {step}" for step in _steps(loaded, unset, dotenv, option))]))


def _wanted(config: Config) -> list[str]:
    """The variables from which this configuration takes credentials."""
    livekit = config.livekit
    wanted = [
        variable
        for variable, value in (
            ("LIVEKIT_URL", livekit.url),
            ("LIVEKIT_API_KEY", livekit.api_key),
            ("LIVEKIT_API_SECRET", livekit.api_secret),
        )
        if not value
    ]
    provider = _provider(config)
    if provider is not None and provider[0] in _PROVIDER_KEYS and not provider[1].get("api_key"):
        wanted.append(_PROVIDER_KEYS[provider[0]])
    return wanted


def _provider(config: Config) -> tuple[str, dict[str, object]] | None:
    """Name and options of the speech recognizer; None if nothing here recognizes speech."""
    capture = config.capture
    if capture.observe is not None:
        return None
    if capture.realtime is not None:
        return capture.realtime.provider, capture.realtime.options
    return None if capture.stt.provider == "none" else (capture.stt.provider, capture.stt.options)


def _steps(config: Config, unset: list[str], dotenv: Path, option: str) -> list[str]:
    steps, program = [], program_name()
    provider = _provider(config)
    if provider is not None and not is_installed(provider[0]):
        where = "" if provider[0] in (*_PROVIDER_KEYS, "moonshine") else f", if LiveKit has that plugin: {_PLUGINS}"
        steps.append(f"{installing(provider[0])}    # {provider[0]} is not installed{where}")
    if unset:
        steps.append(f"set {', '.join(unset)} in {dotenv} (and keep that file out of version control)")
    local = [endpoint.name for endpoint in config.endpoints if is_local(endpoint.url.host)]
    if local:
        which = "" if local[0] == config.endpoints[0].name else f" --endpoint {local[0]}"
        steps.append(f"{program} listen{which}{option}    # in another terminal, as the receiver of {local[0]}")
    if not config.endpoints:
        steps.append("add an endpoint under endpoints: until then nothing is sent")
    steps.append(f"{program} check{option}     # says what the relay will do, and tries it")
    steps.append(f"{program} run{option}")
    return steps


class _Percent(Template):
    delimiter = "%"  # the file uses $ itself


def render(*, name: str = DEFAULT_NAME, url: str = DEFAULT_URL, stt: str = "deepgram") -> str:
    """Render a commented config.yaml with one endpoint; the one at the project's root is the default rendering.

    Raises pydantic's ``ValidationError`` for a bad endpoint.
    """
    endpoint = Endpoint(name=name, url=url)
    template = files("relay.config").joinpath("template.yaml").read_text(encoding="utf-8")
    return _Percent(template).substitute(
        name=endpoint.name,
        url=endpoint.url,
        variable=secret_variable(endpoint.name),
        stt=_OPTIONS.get(stt, f"{{provider: {stt}}}"),
    )


def add_variables(path: Path, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Set each variable that is missing or empty in ``.env``, and keep its other lines; returns the names of those set.

    The file appears complete, with mode 0600, or not at all. Raises :class:`ConfigError` if it cannot be written.
    """
    path = path.resolve()
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    changed: list[str] = []
    for name, value in variables.items():
        written = re.compile(rf"\s*(?:export\s+)?{re.escape(name)}\s*=\s*(.*)")
        places = [(index, match[1]) for index, line in enumerate(lines) if (match := written.fullmatch(line))]
        if not places:
            lines.append(f"{name}={value}")
        elif value and not places[-1][1].strip("\"' "):
            lines[places[-1][0]] = f"{name}={value}"
        else:
            continue
        if value:
            changed.append(name)
    _replace(path, "\n".join(lines) + "\n")
    return tuple(changed)


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
