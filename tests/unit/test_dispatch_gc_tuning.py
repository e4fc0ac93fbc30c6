"""What the collector is told to leave alone, and what it still finds."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from relay.app.delivery import THRESHOLD, collect_rarely


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Knot:
    """Garbage that only the collector frees."""

    def __init__(self) -> None:
        self.me = self


def test_what_exists_is_left_out_and_what_comes_later_is_still_found() -> None:
    collect_rarely()
    assert gc.get_freeze_count() > 1000
    gone = weakref.ref(Knot())
    # a few hundred more than the threshold: the interpreter does not count lists that it has kept for reuse
    waves = [[] for _ in range(THRESHOLD + 500)]  # type: ignore[var-annotated]  # empty is all they need to be
    assert gone() is None
    assert len(waves) > gc.get_threshold()[0]
