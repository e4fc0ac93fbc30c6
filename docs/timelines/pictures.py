"""The pictures that the pages show: each is a golden timeline of the tests, under its name."""

import re
from pathlib import Path

from docs.timelines.drawing import svg
from docs.timelines.room import room_picture
from docs.timelines.stream import stream_picture
from tests.unit.timelines import play

_SHOWN = re.compile(r"pictures/(\w+)\.svg")


def pictures(docs: Path) -> dict[Path, str]:
    """Every picture that a page in ``docs`` shows. Raises FileNotFoundError: there is no timeline of that name."""
    names = sorted({name for page in docs.rglob("*.md") for name in _SHOWN.findall(page.read_text())})
    return {docs / "pictures" / f"{name}.svg": _picture(Path(play.__file__).parent, name) for name in names}


def _picture(timelines: Path, name: str) -> str:
    room = timelines / "overlap" / f"{name}.txt"
    return svg(room_picture(room) if room.exists() else stream_picture(timelines / f"{name}.txt"))
