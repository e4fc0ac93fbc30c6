"""Imports LiveKit's plugins by name."""

import importlib
import re
from types import ModuleType

from relay.capture.plugins.names import installing, module_of
from relay.errors import ProviderError


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
