"""Checks that the outbox can be written."""

import os
from pathlib import Path

from relay.cli.probes.finding import Finding
from relay.config.models import Outbox


def probe_outbox(outbox: Outbox) -> Finding:
    """Check whether the database, or the folder for it, is writable. Creates nothing."""
    path = Path(outbox.url.removeprefix("sqlite:///").partition("?")[0])
    try:
        return _probe(path)
    except OSError as error:  # a name that is too long, a folder without search permission
        return Finding("outbox", "failed", f"{path}: {error.strerror}; correct outbox.url")


def _probe(path: Path) -> Finding:
    if path.is_dir():
        return Finding("outbox", "failed", f"{path} is a folder; outbox.url names a file")
    if path.exists():
        writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        return _finding(writable, f"{path} is there and writable", path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return _finding(folder.is_dir() and os.access(folder, os.W_OK | os.X_OK), f"{path} will be made", folder)


def _finding(writable: bool, detail: str, place: Path) -> Finding:
    if writable:
        return Finding("outbox", "ok", detail)
    return Finding("outbox", "failed", f"{place} is not writable for this user; change its owner or outbox.url")
