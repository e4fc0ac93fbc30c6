"""Instruments objects of LiveKit and its plugins by overriding a few methods.

An observed detector must stay the same detector for everything else: for ``isinstance``, the plugin's own methods, the
listeners of its metrics and errors, and whatever the next version of LiveKit requires. So nothing is wrapped: the
object gets a subclass of its own class, in which a few methods also report what they do.
"""

from typing import Any, TypeVar

T = TypeVar("T")


def view(thing: T, methods: type, **attributes: Any) -> T:
    """Make a second object that shares the state of ``thing``, with ``methods`` in front.

    It is not a copy. ``attributes`` are set on its class, where ``thing`` does not see them.

    Raises TypeError for a ``thing`` of a kind that these methods do not fit, and whatever its class raises where it
    allows no such subclass.
    """
    if not isinstance(thing, methods.__bases__):
        raise TypeError
    seen = object.__new__(_subclass(type(thing), methods, attributes))
    seen.__dict__ = thing.__dict__
    return seen  # type: ignore[no-any-return]  # an instance of a subclass of T, made on the spot


def watch(thing: T, methods: type, **attributes: Any) -> T:
    """Change the class of the object itself to such a subclass."""
    thing.__class__ = _subclass(type(thing), methods, attributes)
    return thing


def _subclass(kind: type, methods: type, attributes: dict[str, Any]) -> Any:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (methods, kind), {**attributes, **names})
