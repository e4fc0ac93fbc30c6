"""Quotes that have become part of a value, and what to do about them."""

_PLAIN = ('"', "'")
_TYPOGRAPHIC = tuple("\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb")
"""As web pages and word processors put them around words: to YAML they are letters."""

_KEPT = "is in quotes, which are a part of it here, as docker --env-file keeps them; take them out"
_PASTED = "is in typographic quotes, which YAML takes for a part of it; write \" or ' in their place"


def at_an_end(value: str) -> str | None:
    """What is wrong with quotes at an end of a value that cannot have any; None where there are none."""
    ends = value[:1], value[-1:]
    if any(end in _PLAIN for end in ends):
        return _KEPT
    return _PASTED if any(end in _TYPOGRAPHIC for end in ends) else None


def around(value: str) -> str | None:
    """The same for a value that may have them, such as a room's name: only quotes at both of its ends are wrong."""
    both = all(at_an_end(end) for end in (value[:1], value[-1:]))
    return at_an_end(value) if both and len(value) > 1 else None
