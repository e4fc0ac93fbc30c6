"""The rules of CONTRIBUTING that a number can hold: sizes of files and folders, and names."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.cli import ROOT

MOST_LINES = 350
MOST_FILES = 20
LONGEST_TEST_NAME = 80


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def defined(path: Path, kind: type[ast.stmt]) -> Iterator[str]:
    """The names of what a module defines at its top level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, kind):
            yield node.name  # type: ignore[attr-defined]  # both kinds that are asked for have a name


def test_no_file_of_the_package_is_longer_than_350_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules("relay")}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_folder_of_the_package_has_more_than_20_files() -> None:
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in modules("relay") if path.name != "__init__.py")
    assert {name: count for name, count in counts.items() if count > MOST_FILES} == {}


def test_no_class_name_of_the_package_exists_twice() -> None:
    counts = Counter(name for path in modules("relay") for name in defined(path, ast.ClassDef))
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_name_of_a_test_is_longer_than_80_characters() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = [name for path in modules("tests") for kind in kinds for name in defined(path, kind)]
    assert [name for name in names if name.startswith("test_") and len(name) > LONGEST_TEST_NAME] == []
