"""Objects of LiveKit and its plugins, with a method or two looked at on the way.

A detector that is wrapped must be the detector to everybody else: to ``isinstance``, to the plugin's own methods, to
listeners of its metrics and errors, to whatever the next version of LiveKit asks of it. So nothing is wrapped: the
object is given a subclass of its own class, in which a few methods do what they did and tell of it.
"""

from typing import Any, TypeVar

T = TypeVar("T")


def view(thing: T, methods: type, **attributes: Any) -> T:
    """A second object with the state of ``thing``, not a copy of it, whose class has ``methods`` in front.

    ``attributes`` are its class's, where ``thing`` does not see them.

    Raises TypeError for a ``thing`` that is not of the kind whose methods these are, and whatever a class raises that
    allows no such subclass.
    """
    if not isinstance(thing, methods.__bases__):
        raise TypeError
    seen = object.__new__(_subclass(type(thing), methods, attributes))
    seen.__dict__ = thing.__dict__
    return seen  # type: ignore[no-any-return]  # an instance of a subclass of T, made on the spot


def watch(thing: T, methods: type, **attributes: Any) -> T:
    """The object itself, from now on of such a class."""
    thing.__class__ = _subclass(type(thing), methods, attributes)
    return thing


def _subclass(kind: type, methods: type, attributes: dict[str, Any]) -> Any:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (methods, kind), {**attributes, **names})
