"""``speech-relay init``: a configuration that works, and the secrets that it needs."""

import os
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.options import DEFAULT_CONFIG, ConfigOption

_PROVIDER_KEYS = {"deepgram": "DEEPGRAM_API_KEY"}


def command(
    config: ConfigOption = DEFAULT_CONFIG,
    url: Annotated[
        str | None, typer.Option(help="Where webhooks go; without it, to `speech-relay listen` on this machine.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the endpoint is called.")] = "receiver",
    stt: Annotated[str, typer.Option(help="deepgram, moonshine, none, or any LiveKit STT plugin.")] = "deepgram",
    force: Annotated[bool, typer.Option("--force", help="Write config.yaml anew. .env keeps its lines.")] = False,
) -> None:
    """Write a commented config.yaml, and make the secrets that its endpoints need, in .env.

    Run again on a file that is there, it leaves the file as it is and makes only the secrets that are missing.
    """
    from relay.cli.secrets_file import add_variables
    from relay.config.environment import dotenv_beside
    from relay.config.load import unset_secrets
    from relay.config.template import DEFAULT_URL
    from relay.dispatch.signing import new_secret
    from relay.errors import ConfigError
    from relay.private_files import write_private

    if _is_there(config) and not force:
        typer.echo(f"{config} is there already and stays as it is (--force writes it anew).")
    else:
        text = _rendered(name, url or DEFAULT_URL, stt)
        try:
            config.parent.mkdir(parents=True, exist_ok=True)
            write_private(config, text)
        except OSError as error:
            raise ConfigError(f"{config} cannot be written: {error.strerror}") from None
        typer.echo(f"Wrote {config}.")

    dotenv = dotenv_beside(config)
    wanted = ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", *filter(None, [_PROVIDER_KEYS.get(stt)])]
    missing = unset_secrets(config, os.environ)
    made = add_variables(dotenv, {**dict.fromkeys(wanted, ""), **{variable: new_secret() for variable in missing}})
    for variable, endpoint in missing.items():
        if variable in made:
            typer.echo(
                f"Made a signing secret for endpoint {endpoint}: {variable} in {dotenv}; its receiver needs it too."
            )

    empty = [key for key in wanted if not _has_value(dotenv, key)]
    typer.echo("\nNext:")
    if empty:
        typer.echo(f"  set {', '.join(empty)} in {dotenv} (and keep that file out of version control)")
    typer.echo("  speech-relay listen    # in another terminal, for a receiver on this machine")
    typer.echo("  speech-relay check     # says what the relay will do, and tries it")
    typer.echo("  speech-relay run")


def _is_there(config: Path) -> bool:
    from relay.errors import ConfigError

    try:
        return config.exists()
    except OSError as error:
        raise ConfigError(f"{config} cannot be written: {error.strerror}") from None


def _rendered(name: str, url: str, stt: str) -> str:
    from pydantic import ValidationError

    from relay.config.template import render

    try:
        return render(name=name, url=url, stt=stt)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]["loc"][0]
        rule = "lower-case letters, digits, - and _" if wrong == "name" else "an http:// or https:// URL"
        raise typer.BadParameter(f"must be {rule}", param_hint=f"--{wrong}") from None


def _has_value(dotenv: Path, name: str) -> bool:
    from relay.config.environment import read_dotenv

    return bool(os.environ.get(name) or read_dotenv(dotenv).get(name, ("", 0))[0])
