"""Finds, imports and builds LiveKit's plugins by name."""

import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeVar

from relay.config.capture import Capture
from relay.config.fields import nearest
from relay.errors import ProviderError

_EXTRAS = ("assemblyai", "cartesia", "moonshine", "openai")
_KNOWN = (*_EXTRAS, "deepgram", "livekit", "silero", "none")


def module_of(name: str) -> str:
    """The module required for ``capture.stt.provider: name``, or for ``capture.realtime``."""
    match name:
        case "livekit":
            return "livekit.agents"
        case "moonshine":
            return "moonshine_voice"
        case _:
            return f"livekit.plugins.{name.replace('-', '_')}"


def modules_of(capture: Capture) -> list[str]:
    """The modules that a listening process imports for its detectors; some may not be installed."""
    if capture.observe is not None:
        return []
    names = (
        [capture.realtime.provider] if capture.realtime is not None else [capture.vad.provider, capture.stt.provider]
    )
    return [module_of(name) for name in names if name != "none"]


def package_of(name: str) -> str:
    """The PyPI package that contains it. The extras are those that are tested with each release."""
    return f"speech-relay[{name}]" if name in _EXTRAS else f"livekit-plugins-{name.replace('_', '-')}"


def installing(name: str) -> str:
    """How to install it: an extra of the relay from a clone, or a plugin of livekit-agents' version.

    The relay itself is not on PyPI, so an extra cannot be installed by the relay's name. A misspelt name is pointed out
    first: a package of that name may be anyone's.
    """
    if name in _EXTRAS:
        return f"pip install '.[{name}]' in a clone of speech-relay (the extra {name})"
    requirement = f"{package_of(name)}=={version('livekit-agents')}"
    command = f"pip install {shlex.quote(requirement)}"
    meant = nearest(name, _KNOWN)
    return f"did you mean {meant}? If not: {command}" if meant else command


def is_installed(name: str) -> bool:
    """Whether the module is installed; it is not imported."""
    try:
        return find_spec(module_of(name)) is not None
    except ModuleNotFoundError:
        return False


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


def plugin(name: str, key: str, example: str) -> ModuleType:
    """Import the plugin. ``key`` names the section (``capture.stt``) in messages.

    Raises ProviderError: it is not installed, or not the name of a plugin (for example ``example``).
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise ProviderError(f"{key}.provider: {name!r} is not the name of a LiveKit plugin, such as {example}")
    module_name = module_of(name)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name == module_name:
            raise ProviderError(f"{key}.provider: {name} is not installed: {installing(name)}") from None
        raise ProviderError(f"{key}.provider: {module_name} cannot be imported, it lacks {error.name}") from None
