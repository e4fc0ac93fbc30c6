"""Reads a YAML file with every key's line, so that later errors can point to it.

Reading always terminates: the file's size, its nesting depth and the number of its values, with all aliases expanded,
are limited before anything is built from it.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from relay.config.files import decoded, read_file
from relay.config.problems import MAX_MISTAKES, KeyPath, Mistake, Mistakes

MAX_DEPTH = 32
"""Maximum nesting of sections and lists."""

MAX_VALUES = 20_000
"""Maximum keys, values and list items, repetitions by aliases included."""

MAX_TEXT = 4 * 1024 * 1024
"""Maximum characters of all values, repetitions by aliases included."""

_TAG = "tag:yaml.org,2002:"
_KEY_TAGS = (f"{_TAG}str", f"{_TAG}merge")
_MEANT = {
    f"{_TAG}str": "text",
    f"{_TAG}int": "whole number",
    f"{_TAG}float": "number",
    f"{_TAG}bool": "yes or no",
    f"{_TAG}null": "null",
    f"{_TAG}timestamp": "date",
}
"""The kinds of value in a configuration, and their names."""

_NUMBERS = (f"{_TAG}int", f"{_TAG}float")
_LONGEST_NUMBER = 40
_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_OWN_WORDS = ("true", "false")


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a file and their positions in it."""

    name: str
    """The path as the operator wrote it."""
    values: dict[str, Any]
    lines: Mapping[KeyPath, int]
    """Line of each key and list item, counted from 1."""

    def where(self, path: KeyPath) -> str:
        """``file:line`` of a key, or of the nearest enclosing one that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path else self.name


def read_document(path: Path) -> Document:
    """Read a YAML file. Raises :class:`Mistakes` if it is missing, is not YAML or repeats a key.

    A section without a key (all commented out) counts as absent.
    """
    values, lines = _parsed(path, _text(path))
    if values is None:
        return Document(str(path), {}, {})
    if not isinstance(values, dict):
        raise Mistakes([Mistake(f"{path}:1", "", "not a mapping; begin with a section such as `endpoints:`")])
    return Document(str(path), {key: value for key, value in values.items() if value is not None}, lines)


def _text(path: Path) -> str:
    try:
        return decoded(read_file(path))
    except FileNotFoundError:
        raise Mistakes([Mistake(str(path), "", "no such file; `speech-relay init` writes one")]) from None
    except IsADirectoryError:
        cure = "write a file there; Docker makes a folder where the file to mount is not there"
        raise Mistakes([Mistake(str(path), "", f"is a folder; {cure}")]) from None
    except PermissionError:
        cure = "give it to that user with chown, or chmod 644 it where it holds no secret"
        raise Mistakes([Mistake(str(path), "", f"user {os.geteuid()} may not read it; {cure}")]) from None
    except OSError as error:
        raise Mistakes([Mistake(str(path), "", f"cannot be read: {error.strerror}")]) from None
    except ValueError as error:
        raise Mistakes([Mistake(str(path), "", str(error))]) from None


def _parsed(path: Path, text: str) -> tuple[Any, Mapping[KeyPath, int]]:
    try:
        loader = _Loader(text)
    except yaml.YAMLError:
        raise Mistakes([Mistake(str(path), "", "not YAML: it has a character that YAML does not allow")]) from None
    try:
        root = loader.get_single_node()
        if root is None:
            return None, {}
        lines = _Checked(loader, path).lines(root)
        return loader.construct_document(root), lines
    except yaml.MarkedYAMLError as error:
        raise Mistakes([_syntax(path, text, error)]) from None
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError):
        # PyYAML's scanner lets exceptions of the functions that it calls through: chr() for "\\UFFFFFFFF"
        what = "not YAML: an escape or a tag without a meaning; correct it"
        raise Mistakes([Mistake(f"{path}:{loader.line + 1}", "", what)]) from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Stops at the first node that is too deep or exceeds the count, before its parts are read."""

    _depth = _nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._nodes += 1
        if self._nodes > MAX_VALUES:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_VALUES} values", mark)
        if self._depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Checked:
    """Walks all values, aliases expanded, and finds what YAML allows and a configuration does not."""

    def __init__(self, loader: _Loader, file: Path) -> None:
        self._loader, self._file = loader, file
        self._lines: dict[KeyPath, int] = {}
        self._around: set[int] = set()
        self._values = self._text = 0

    def lines(self, root: yaml.Node) -> Mapping[KeyPath, int]:
        """The line of every key and list item. Raises :class:`Mistakes`."""
        faults = []
        for fault in self._walk(root, ()):
            faults.append(fault)
            if len(faults) > MAX_MISTAKES:
                break
        if faults:
            raise Mistakes(faults)
        return self._lines

    def _walk(self, node: yaml.Node, at: KeyPath) -> Iterator[Mistake]:
        self._count(node, at)
        if isinstance(node, yaml.ScalarNode):
            if text := self._wrong_with(node, at):
                yield self._problem(node, at, text)
            return
        if node.tag != (f"{_TAG}map" if isinstance(node, yaml.MappingNode) else f"{_TAG}seq"):
            yield self._problem(node, at, "has a tag that a configuration has no use for; take it out")
            return
        self._around.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield from self._key(key, value, at)
        else:
            for index, item in enumerate(node.value):
                self._lines[*at, index] = item.start_mark.line + 1
                yield from self._walk(item, (*at, index))
        self._around.remove(id(node))

    def _key(self, key: yaml.Node, value: yaml.Node, at: KeyPath) -> Iterator[Mistake]:
        line = key.start_mark.line + 1
        if key.tag not in _KEY_TAGS or not isinstance(key, yaml.ScalarNode):
            name = key.value if isinstance(key.value, str) else ""
            yield Mistake(f"{self._file}:{line}", name, "a key that is not text; put it in quotes")
            return
        if (*at, key.value) in self._lines:
            first = self._lines[*at, key.value]
            yield Mistake(f"{self._file}:{line}", key.value, f"written twice, first in line {first}; keep one")
            return
        self._lines[*at, key.value] = line
        yield from self._walk(value, (*at, key.value))

    def _count(self, node: yaml.Node, at: KeyPath) -> None:
        """Raises :class:`Mistakes` if aliases expand to too much: continuing would take time in proportion."""
        self._values += 1
        self._text += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if id(node) in self._around:
            text = "an alias for what it is a part of; write out what is meant"
        elif self._values > MAX_VALUES or self._text > MAX_TEXT:
            text = f"the aliases up to here come to more than {MAX_VALUES} values or 4 MiB of text; use fewer"
        elif len(at) > MAX_DEPTH:
            text = f"aliases make it nested more than {MAX_DEPTH} levels deep; use fewer"
        else:
            return
        raise Mistakes([self._problem(node, at, text)])

    def _wrong_with(self, node: yaml.ScalarNode, at: KeyPath) -> str | None:
        written = node.value
        if node.tag not in _MEANT:
            return "has a tag or a sign that a configuration has no use for; put it in quotes"
        if node.tag in _NUMBERS:
            if len(written) > _LONGEST_NUMBER:
                return "a number with too many digits; write fewer, or put it in quotes if it is text"
            if ":" in written:
                return "YAML takes 1:30 for 90; write 90 or 1m30s, or put it in quotes if it is text"
            if node.tag == f"{_TAG}int" and _OCTAL.fullmatch(written):
                return "YAML takes 010 for 8; write it without the leading 0, or put it in quotes if it is text"
        if node.tag == f"{_TAG}bool" and "options" in at and written.lower() not in _OWN_WORDS:
            return f"YAML takes {written} for a yes or no; write true or false, or put it in quotes if it is text"
        try:
            self._loader.construct_object(node)
        except Exception:  # any exception of the functions that PyYAML's constructors call
            return f"not a {_MEANT[node.tag]}, which YAML takes it for; correct it, or put it in quotes if it is text"
        return None

    def _problem(self, node: yaml.Node, at: KeyPath, text: str) -> Mistake:
        line = self._lines.get(at, node.start_mark.line + 1)
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).removeprefix(".")
        return Mistake(f"{self._file}:{line}", key, text)


def _syntax(path: Path, text: str, error: yaml.MarkedYAMLError) -> Mistake:
    mark = error.problem_mark or error.context_mark
    problem, context = error.problem or "", error.context or ""
    what = f"not YAML: {problem or context}"
    if space := _LIKE_A_SPACE.search(text):
        line = text.count("\n", 0, space.start()) + 1
        return Mistake(f"{path}:{line}", "", "not YAML: indented with a character that looks like a space; use spaces")
    if context == "while scanning an alias":
        what = 'not YAML: a word cannot begin with *; quote it: "*"'
    elif "'\\t'" in problem:
        what = "not YAML: indented with a tab; use spaces"
    elif problem == "but found another document":
        what = "a second document begins; take out the --- above it"
    elif begins := _NO_BEGINNING.search(problem):
        what = f"not YAML: a word cannot begin with {begins[1]}; quote it"
    else:
        for said, cure, at_its_beginning in _SYNTAX:
            if said in f"{context}: {problem}":
                what, mark = f"not YAML: {cure}", error.context_mark if at_its_beginning else mark
                break
    return Mistake(f"{path}:{mark.line + 1}" if mark else str(path), "", what)


_LIKE_A_SPACE = re.compile(r"^ *[\xa0\u2000-\u200b\u202f\u3000]", re.MULTILINE)
"""What is pasted from a web page or a chat may be indented with these."""

_NO_BEGINNING = re.compile(r"found character '(.)' that cannot start any token")

_ALIGN = "indented unlike the lines around it; align it with the keys or list items beside it"
_QUOTE = "; put text that has one of ?,[]{} in it in quotes"
_SYNTAX = (
    ("expected <block end>, but found '<block", _ALIGN, False),
    ("expected <block end>, but found '-'", _ALIGN, False),
    ("expected <block end>, but found '?'", _ALIGN, False),
    ("expected <block end>, but found", "text after the end of a value; put all of it in one pair of quotes", False),
    (
        "mapping values are not allowed here",
        "no key can be here; align it with the keys beside it, write a blank after the `:` of the line above, "
        "and put text that has `: ` in it in quotes",
        False,
    ),
    ("could not find expected ':'", "neither `key: value` nor a list item; write one of them", True),
    ("while parsing a flow sequence", f"a [ that is not closed, or a missing comma after an item{_QUOTE}", True),
    ("while parsing a flow mapping", f"a {{ that is not closed, or a missing comma after a value{_QUOTE}", True),
    ("scalar: found unexpected end of stream", "a quote that is not closed", True),
    (
        "while scanning a double-quoted scalar",
        "an escape without a meaning; write \\\\ for a \\, or use single quotes",
        False,
    ),
)
"""What PyYAML says, what it means to someone who has never read YAML's grammar, and whether the mistake is where the
construct begins."""
