"""Objects of LiveKit and its plugins, with a method or two looked at on the way.

A detector that is wrapped must be the detector to everybody else: to ``isinstance``, to the plugin's own methods, to
listeners of its metrics and errors, to whatever the next version of LiveKit asks of it. So nothing is wrapped: the
object is given a subclass of its own class, in which a few methods do what they did and tell of it.
"""

import logging
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


def view(thing: T, methods: type, **attributes: Any) -> T:
    """A second object with the state of ``thing``, not a copy of it, whose class has ``methods`` in front.

    ``attributes`` are its class's, where ``thing`` does not see them. A ``thing`` that allows no such class is given
    back as it is.
    """
    try:
        seen = object.__new__(_subclass(type(thing), methods, attributes))
        seen.__dict__ = thing.__dict__
    except (TypeError, AttributeError):
        log.error("speech-relay cannot overhear a %s: it is used as it is", type(thing).__name__)  # noqa: TRY400 - for operators
        return thing
    return seen  # type: ignore[no-any-return]  # an instance of a subclass of T, made on the spot


def watch(thing: T, methods: type, **attributes: Any) -> T:
    """The object itself, from now on of such a class."""
    thing.__class__ = _subclass(type(thing), methods, attributes)
    return thing


def _subclass(kind: type, methods: type, attributes: dict[str, Any]) -> Any:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (methods, kind), {**attributes, **names})
