"""Builds a provider from the options in config.yaml."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from relay.errors import ProviderError

T = TypeVar("T")


def build(factory: Callable[..., T], options: Mapping[str, Any], key: str, **given: Any) -> T:
    """Call ``factory(**options)``, plus those of ``given`` that it accepts and the options leave out.

    ``key`` names the section (``capture.stt``) in messages. Raises ProviderError for an unknown option, a value that
    the factory rejects, or a file that it cannot read or use.
    """
    prove_known(factory, options, key)
    parameters = inspect.signature(factory).parameters
    extra = {name: value for name, value in given.items() if name in parameters and name not in options}
    try:
        return factory(**options, **extra)
    except (TypeError, ValueError, OSError) as error:
        raise ProviderError(f"{key}: {_masked(str(error), options)}") from None
    except Exception as error:  # an invalid model file, for example: every library has its own errors
        raise ProviderError(f"{key}: {type(error).__name__}: {_masked(str(error), options)}") from None


def prove_known(factory: Callable[..., Any], options: Iterable[str], key: str) -> None:
    """Raise ProviderError for an option that the factory does not have. ``key`` is as in :func:`build`."""
    parameters = inspect.signature(factory).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        refuse_unknown(options, parameters, f"{key}.options")


def named_options(factory: Callable[..., Any]) -> frozenset[str]:
    """The options that the factory accepts by name."""
    parameters = inspect.signature(factory).parameters.values()
    return frozenset(
        parameter.name
        for parameter in parameters
        if parameter.name != "self" and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    )


def refuse_unknown(options: Iterable[str], known: Collection[str], key: str) -> None:
    """Raise ProviderError for an option that is not among the known ones. ``key`` is the section of the options."""
    for option in options:
        if option not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ProviderError(f"{key}.{option}: there is no such option; known are: {names}")


def _masked(message: str, options: Mapping[str, Any]) -> str:
    for value in options.values():
        if isinstance(value, str) and len(value) >= 8:
            message = message.replace(value, "…")
    return message
