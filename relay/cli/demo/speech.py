"""The demo's speakers: the speech bundled with moonshine-voice, or the user's own files."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from relay.capture.plugins import installing
from relay.errors import ProviderError

_BUNDLED = ("two_cities.wav", "beckett.wav")


@dataclass(frozen=True, slots=True)
class DemoSpeaker:
    """One participant of the demo's room, who says the content of a file."""

    identity: str
    file: Path


def speakers(files: Sequence[Path]) -> list[DemoSpeaker]:
    """One speaker per file, named after it; without files, the bundled speech.

    Raises ``ProviderError`` if the bundled speech, or the local speech recognition, is not installed.
    """
    package = find_spec("moonshine_voice")
    if package is None or package.submodule_search_locations is None:
        raise ProviderError(
            f"the demo recognizes speech with moonshine, which is not installed: {installing('moonshine')}"
        )
    assets = Path(package.submodule_search_locations[0], "assets")
    chosen = list(files) or [assets / name for name in _BUNDLED]
    names = [file.stem for file in chosen]
    return [
        DemoSpeaker(name if names.count(name) == 1 else f"{name}-{index}", file)
        for index, (name, file) in enumerate(zip(names, chosen, strict=True), start=1)
    ]
