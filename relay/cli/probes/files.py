"""Finds files with secrets or transcripts that other users of this machine may read."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from relay.cli.probes.finding import Finding
from relay.config.document import read_document
from relay.config.models import Config
from relay.outbox.operator.access import log_file
from relay.private_files import exposed

_LOG_PARTS = ("", "-wal", "-shm", ".lock", ".relay")
_SECRET_KEY = re.compile(r"secret|api_?key|token|password|authorization", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{\w+(:-)?\}")
_URL_WITH_SECRET = re.compile(r"https?://[^/?#]*@|https?://[^#]*\?")


def probe_files(files: Sequence[Path], config: Config) -> list[Finding]:
    """A failure for each file with secrets or the log that group or others can read or write.

    ``files``: the files of the configuration. ``.env`` is always checked, the YAML file if it contains a secret itself,
    and not only as ``${VAR}``. Correct files are not reported.
    """
    log = log_file(config.outbox.url)
    private = [path for path in files if path.name == ".env" or _has_secret(path)]
    private += [path for endpoint in config.endpoints for path in (endpoint.tls.key,) if path]
    private += [log.with_name(log.name + part) for part in _LOG_PARTS]
    return [
        Finding("files", "failed", f"other users may read or write {path}; chmod 600 {path}")
        for path in private
        if exposed(path)
    ]


def _has_secret(path: Path) -> bool:
    regular = path.is_file()  # a pipe has been read already
    return regular and any(_is_secret(key, value) for key, value in _texts(read_document(path).values))


def _is_secret(key: str, value: str) -> bool:
    if _SECRET_KEY.search(key):
        return bool(value) and not _REFERENCE.fullmatch(value)
    return bool(_URL_WITH_SECRET.match(value))


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text with the nearest key above it."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, str(name))
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item, key)
    elif isinstance(node, str):
        yield key, node
