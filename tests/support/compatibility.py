"""What a change of the events would break for those who receive them.

Within an ``api_version`` the contract only grows: event types, keys that need not be there, and values of an
enumeration may be added. Everything else is a break. A key added later is never required, because a log holds events
that an earlier release wrote, and delivers them as they are.
"""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_BOUNDS = {"minimum": 1, "maximum": -1, "minLength": 1, "maxLength": -1, "minItems": 1, "maxItems": -1}
"""Keyword → 1 where a larger value promises more, -1 where a smaller one does."""
_EXACT = ("const", "format", "pattern")


def breaks(old: Schema, new: Schema) -> list[str]:
    """Where the new schema of all events no longer keeps what the old one promised, a line each; empty if nowhere."""
    then, now = _types(old), _types(new)
    found = [f"{name}: removed" for name in then if name not in now]
    for name in then:
        if name in now:
            found += _compared(_Node(old, then[name]), _Node(new, now[name]), name)
    return found


class _Node:
    """A schema inside a document, with its references resolved."""

    def __init__(self, document: Schema, schema: Schema) -> None:
        self._document, self.own = document, _resolved(document, schema)

    def kinds(self) -> dict[str, "_Node"]:
        """The alternatives by their JSON type: ``{"integer": …, "null": …}``."""
        each = [self.child(one) for one in self.own["anyOf"]] if "anyOf" in self.own else [self]
        return {str(one.own.get("type", "anything")): one for one in each}

    def keys(self) -> dict[str, "_Node"]:
        return {key: self.child(value) for key, value in self.own.get("properties", {}).items()}

    def child(self, schema: Schema) -> "_Node":
        return _Node(self._document, schema)


def _types(document: Schema) -> dict[str, Schema]:
    events = [_resolved(document, each) for each in document["oneOf"]]
    return {event["properties"]["type"]["const"]: event for event in events}


def _resolved(document: Schema, schema: Schema) -> Schema:
    while "$ref" in schema or "allOf" in schema:
        # the only use of allOf: a reference with a description of its own
        ref = schema["$ref"] if "$ref" in schema else schema["allOf"][0]["$ref"]
        schema = document["$defs"][ref.rpartition("/")[2]]
    return schema


def _compared(old: _Node, new: _Node, at: str) -> Iterator[str]:
    then, now = old.kinds(), new.kinds()
    if then.keys() != now.keys():
        yield f"{at}: was {' or '.join(sorted(then))}, is {' or '.join(sorted(now))}"
        return
    for kind in then:
        yield from _same_kind(then[kind], now[kind], at)


def _same_kind(old: _Node, new: _Node, at: str) -> Iterator[str]:
    for keyword in _EXACT:
        if old.own.get(keyword) != new.own.get(keyword):
            yield f"{at}: {keyword} was {old.own.get(keyword)}, is {new.own.get(keyword)}"
    for keyword, sign in _BOUNDS.items():
        promised, kept = old.own.get(keyword), new.own.get(keyword)
        if promised is not None and (kept is None or sign * kept < sign * promised):
            yield f"{at}: {keyword} was {promised}, is {kept}"
    if ("enum" in old.own) != ("enum" in new.own):
        yield f"{at}: was {'one' if 'enum' in old.own else 'not one'} of a list, and no longer is"
    for value in old.own.get("enum", ()):
        if value not in new.own.get("enum", (value,)):
            yield f"{at}: the value {value} was removed"
    yield from _keys(old, new, at)
    for keyword in ("items", "additionalProperties"):
        if isinstance(old.own.get(keyword), dict):
            if not isinstance(new.own.get(keyword), dict):
                yield f"{at}: {keyword} are no longer described"
            else:
                yield from _compared(old.child(old.own[keyword]), new.child(new.own[keyword]), f"{at}[]")


def _keys(old: _Node, new: _Node, at: str) -> Iterator[str]:
    then, now = old.keys(), new.keys()
    was, is_ = old.own.get("required", ()), new.own.get("required", ())
    for key in then:
        if key not in now:
            yield f"{at}.{key}: removed"
            continue
        if key in was and key not in is_:
            yield f"{at}.{key}: was always there, and need not be"
        yield from _compared(then[key], now[key], f"{at}.{key}")
    for key in is_:
        if key not in was:
            added = "was added" if key not in then else "needed not be there"
            yield f"{at}.{key}: {added}, and is required; events already in a log lack it: give it a default"
