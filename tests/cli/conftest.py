"""What commands need that run in the tests' own process."""

from importlib import import_module
from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session", autouse=True)
def plugins() -> None:
    """LiveKit registers a plugin on the main thread only, and the commands run on another one."""
    for name in ("silero", "deepgram", "openai"):
        if find_spec(f"livekit.plugins.{name}"):
            import_module(f"livekit.plugins.{name}")
