"""The rules of CONTRIBUTING that a number can hold: sizes of files and folders, and names."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from tests.support.cli import ROOT

MOST_LINES = 350
FEW_LINES = 80
MOST_FILES = 20
LONGEST_TEST_NAME = 80

IMPORT = re.compile(r"^[ \t]*(?:from ([\w.]+) )?import (\([^)]*\)|.*)", re.MULTILINE)
"""A statement as the formatter writes it: to read 700 files as syntax trees takes seconds."""

BY_NAME: Mapping[str, str] = MappingProxyType(
    {
        "relay.__main__": "`python -m relay` and the console script",
        "relay.capture.worker.preload_begin": "the fork server imports it by name",
        "relay.capture.worker.warm_up": "the fork server imports it by name",
        "relay.cli.commands.": "the command line imports one module a command, when the command runs",
        "relay.outbox.migrations.": "Alembic loads its files by their place",
    }
)
"""Modules that something other than an import statement loads; a name with a dot at its end is a folder."""

SMALL: Mapping[str, str] = MappingProxyType(
    {
        "relay.capture.realtime.silent_session": "a stub of LiveKit's interface; with it the session would be too long",
        "relay.outbox.sqlite.file_guard": "compares files; the database beside it is SQL",
    }
)
"""Small modules with one importer and no test of their own, each with the reason why it is a file nevertheless."""


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def dotted(path: Path) -> str:
    """The name by which a module is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """The modules of the package that a file imports, wherever in it; imports here are absolute."""
    for module, names in IMPORT.findall(re.sub("#.*", "", path.read_text())):
        for name in re.findall(r"[\w.]+", names):
            whole = f"{module}.{name}" if module else name
            yield whole if whole in known else module


def importers(folder: str, known: set[str]) -> Counter[str]:
    """How many modules of a folder import each module of the package."""
    return Counter(name for path in modules(folder) for name in set(imported(path, known)) if name != dotted(path))


def defined(kind: str, folder: str) -> list[str]:
    """The names of what the modules of a folder define at their top level."""
    return [name for path in modules(folder) for name in re.findall(rf"^{kind} (\w+)", path.read_text(), re.MULTILINE)]


def test_no_file_of_the_package_is_longer_than_350_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules("relay")}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_folder_of_the_package_has_more_than_20_files() -> None:
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in modules("relay") if path.name != "__init__.py")
    assert {name: count for name, count in counts.items() if count > MOST_FILES} == {}


def test_a_small_module_has_two_importers_or_a_test_of_its_own_or_a_reason() -> None:
    """Otherwise it belongs into its only caller: a reader follows a call more easily than an import."""
    small = {
        dotted(path)
        for path in modules("relay")
        if path.name != "__init__.py" and len(path.read_text().splitlines()) < FEW_LINES
    }
    known = {dotted(path) for path in modules("relay")}
    callers, tests = importers("relay", known), importers("tests", known)
    alone = {name for name in small if callers[name] < 2 and not tests[name] and not name.startswith(tuple(BY_NAME))}
    assert alone - SMALL.keys() == set(), "merge it into its only caller, or give the reason in SMALL"
    assert SMALL.keys() - alone == set(), "these need no reason any more: take them out of SMALL"


def test_no_class_name_of_the_package_exists_twice() -> None:
    counts = Counter(defined("class", "relay"))
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_name_of_a_test_is_longer_than_80_characters() -> None:
    names = [name for name in defined("(?:async )?def", "tests") if name.startswith("test_")]
    assert [name for name in names if len(name) > LONGEST_TEST_NAME] == []


def test_what_needs_a_livekit_server_is_in_the_folder_that_runs_with_one() -> None:
    """`make test` collects `live` and `alone` from that folder only."""
    marked = {path.parent.name for path in modules("tests") if re.search(r"\bmark\.(live|alone)\b", path.read_text())}
    assert marked == {"live"}
