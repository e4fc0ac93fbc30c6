"""``speech-relay schema``: the events as JSON Schema, OpenAPI and AsyncAPI, and a sample of each."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from relay.cli.options import misuse, program_name
from relay.cli.output.formatting import columns
from relay.cli.sample import unknown_type
from relay.contract.documents import FORMATS, Document, Format, examples, written
from relay.contract.json_schema import plain
from relay.errors import ConfigError
from relay.events.catalog import CATALOG, matches
from relay.events.envelope import API_VERSION


def schema(
    form: Annotated[
        Format | None, typer.Option("--format", help="Which kind of document. Without it and --out: JSON Schema.")
    ] = None,
    event: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="Only these types; also patterns such as 'speech.*'.")
    ] = None,
    samples: Annotated[
        bool, typer.Option("--examples", help="A sample body of each type, in place of the schemas.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write files there: without --format, everything.")
    ] = None,
) -> None:
    """Write the contract of the events that endpoints receive. Without an option, list what there is."""
    if form is not None and samples:
        raise misuse("give --format or --examples, not both")
    names = _types(event)
    if out is not None:
        _write(out, _files(form, names, samples=samples))
    elif samples:
        bodies = [body for _, body in examples(names)]
        typer.echo(written(bodies[0] if len(bodies) == 1 else bodies), nl=False)
    elif form is not None or event:
        found = [document for _, document in FORMATS[form or "json-schema"](names)]
        # about a single type, JSON Schema has a document of its own after the one about all
        typer.echo(written(found[-1] if len(names) == 1 else found[0]), nl=False)
    else:
        _overview()


def _types(patterns: list[str] | None) -> list[str]:
    wanted = patterns or ["*"]
    for pattern in wanted:
        if not any(matches(name, (pattern,)) for name in CATALOG):
            raise ConfigError(unknown_type(pattern))
    return [name for name in CATALOG if matches(name, tuple(wanted))]


def _files(form: Format | None, names: list[str], *, samples: bool) -> Iterable[tuple[PurePosixPath, Document]]:
    for kind, documents in FORMATS.items():
        if not samples and form in (None, kind):
            yield from documents(names)
    if form is None:
        yield from examples(names)


def _write(folder: Path, files: Iterable[tuple[PurePosixPath, Any]]) -> None:
    count = 0
    for name, document in files:
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(written(document), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from None
        count += 1
    typer.echo(f"{count} files written to {folder}")


def _overview() -> None:
    rows = [(name, plain(model.__doc__ or "").partition(". ")[0].rstrip(".")) for name, model in CATALOG.items()]
    typer.echo(columns(("TYPE", f"OF api_version {API_VERSION}"), rows))
    name = program_name()
    typer.echo(
        f"\n{name} schema --format {'|'.join(FORMATS)} [--event TYPE]\n"
        f"{name} schema --examples [--event TYPE]\n"
        f"{name} schema --out DIR      every document, and a sample of each type"
    )
