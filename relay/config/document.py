"""A YAML file with the line of every key, so that a mistake found later can still be pointed at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from relay.config.problems import KeyPath, Mistakes, Problem

_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a file and where they are in it."""

    name: str
    """The path as the operator wrote it."""
    values: dict[str, Any]
    lines: Mapping[KeyPath, int]
    """Line of each key and list item, counted from 1."""

    def where(self, path: KeyPath) -> str:
        """``file:line`` of a key, or of the nearest thing around it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path else self.name


def read_document(path: Path) -> Document:
    """Read a YAML file. Raises :class:`Mistakes` for one that is not there, is not YAML or repeats a key.

    A section without a single key under it (all commented out) counts as absent.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        try:
            root = loader.get_single_node()
            if root is None:
                return Document(str(path), {}, {})
            lines: dict[KeyPath, int] = {}
            if faults := list(_index(root, (), lines, path)):
                raise Mistakes(faults)
            values = loader.construct_document(root)
        finally:
            loader.dispose()
    except FileNotFoundError:
        raise Mistakes([Problem(str(path), "", "no such file; `speech-relay init` writes one")]) from None
    except OSError as error:
        raise Mistakes([Problem(str(path), "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise Mistakes([Problem(str(path), "", "not UTF-8 text; save it as UTF-8")]) from None
    except yaml.MarkedYAMLError as error:
        raise Mistakes([_syntax(path, error)]) from None
    except yaml.YAMLError:
        raise Mistakes([Problem(str(path), "", "not YAML: it has a character that YAML does not allow")]) from None
    if not isinstance(values, dict):
        raise Mistakes([Problem(f"{path}:1", "", "not a mapping; begin with a section such as `endpoints:`")])
    return Document(str(path), {key: value for key, value in values.items() if value is not None}, lines)


def _index(node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int], file: Path) -> Iterator[Problem]:
    """Fill in the lines of everything under a node; yields what is wrong with its keys."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag not in _KEY_TAGS:
                yield Problem(
                    f"{file}:{line}",
                    key.value if isinstance(key.value, str) else "",
                    "a key that is not text; put it in quotes",
                )
                continue
            if (*at, key.value) in lines:
                yield Problem(
                    f"{file}:{line}", key.value, f"written twice, first in line {lines[*at, key.value]}; keep one"
                )
            lines.setdefault((*at, key.value), line)
            yield from _index(value, (*at, key.value), lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*at, index] = item.start_mark.line + 1
            yield from _index(item, (*at, index), lines, file)


def _syntax(path: Path, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    what = f"not YAML: {error.problem or error.context}"
    if error.context == "while scanning an alias":
        what = 'not YAML: a word cannot begin with *; quote it: "*"'
    elif error.problem and "'\\t'" in error.problem:
        what = "not YAML: indented with a tab; use spaces"
    return Problem(f"{path}:{mark.line + 1}" if mark else str(path), "", what)
