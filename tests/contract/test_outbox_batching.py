"""What can wait is gathered, but never at the expense of what cannot."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from relay.errors import OutboxError
from relay.outbox.log import batching
from relay.outbox.log.batching import Batching, Haste

Make = Callable[..., Batching[str]]


@pytest.fixture
async def batches() -> list[list[str]]:
    return []


@pytest.fixture
async def make(batches: list[list[str]]) -> AsyncIterator[Make]:
    made: list[Batching[str]] = []

    def work(items: Sequence[str]) -> list[object]:
        batches.append(list(items))
        return [ValueError(item) if item == "bad" else item.upper() for item in items]

    def one(*, limit: int = 10) -> Batching[str]:
        made.append(Batching("test", work, limit=limit))
        return made[-1]

    yield one
    for batch in made:
        await batch.aclose()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gathering ends by itself only when the test has long failed."""
    monkeypatch.setattr(batching, "GATHER", 3600)
    monkeypatch.setattr(batching, "_QUIET", 600)


async def test_what_can_wait_goes_at_once_with_what_cannot(make: Make, batches: list[list[str]], patient: None) -> None:
    thread = make()
    first = thread.submit("wait 1", Haste.SOON)
    async with asyncio.timeout(30):
        assert await thread.submit("now") == "NOW"
        assert await first == "WAIT 1"
    assert batches == [["wait 1", "now"]]


async def test_what_nobody_waits_for_goes_with_what_somebody_does(
    make: Make, batches: list[list[str]], patient: None
) -> None:
    thread = make()
    later = [thread.submit("later 1", Haste.LATER), thread.submit("later 2", Haste.LATER)]
    async with asyncio.timeout(30):
        await asyncio.gather(thread.submit("soon", Haste.SOON), *later)
    assert batches == [["later 1", "later 2", "soon"]]


async def test_what_nobody_waits_for_goes_once_somebody_does(make: Make, patient: None) -> None:
    thread = make()
    later = thread.submit("later", Haste.LATER)
    thread.hasten()
    async with asyncio.timeout(30):
        assert await later == "LATER"


async def test_what_nobody_ever_waits_for_goes_by_itself(make: Make, batches: list[list[str]]) -> None:
    thread = make()
    async with asyncio.timeout(30):
        await asyncio.gather(*(thread.submit(f"later {n}", Haste.LATER) for n in range(3)))
    assert batches == [["later 0", "later 1", "later 2"]]


class Held:
    """A thread whose batches are worked off when it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.released = threading.Event(), threading.Event()
        self.thread = Batching("test", self._work, limit=10)

    def _work(self, items: Sequence[str]) -> list[object]:
        self.batches.append(list(items))
        self.begun.set()
        assert self.released.wait(10)
        return list(items)

    async def together(self, *items: str) -> None:
        """Have these be one batch: they come while the one before them is being worked off."""
        first = self.thread.submit("now")
        assert await asyncio.to_thread(self.begun.wait, 10)
        rest = [self.thread.submit(item, Haste.SOON) for item in items]
        self.released.set()
        await asyncio.gather(first, *rest)
        assert self.batches == [["now"], list(items)]


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    held = Held()
    yield held
    await held.thread.aclose()


async def test_who_was_answered_together_is_waited_for_together(held: Held, patient: None) -> None:
    await held.together("wait 1", "wait 2", "wait 3")
    early = [held.thread.submit("wait 1", Haste.SOON), held.thread.submit("wait 2", Haste.SOON)]
    await asyncio.to_thread(str)  # the thread has had its chance to begin without the third
    async with asyncio.timeout(30):
        await asyncio.gather(*early, held.thread.submit("wait 3", Haste.SOON))
    assert held.batches[2:] == [["wait 1", "wait 2", "wait 3"]]


async def test_what_goes_first_goes_by_itself_and_before_what_came_earlier(held: Held, patient: None) -> None:
    waiting = [held.thread.submit("now", Haste.NOW)]
    await asyncio.to_thread(held.begun.wait, 10)
    waiting += [held.thread.submit("now 2", Haste.NOW), held.thread.submit("soon", Haste.LATER)]
    waiting += [held.thread.submit("first", Haste.FIRST), held.thread.submit("now 3", Haste.NOW)]
    held.released.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)
    assert held.batches == [["now"], ["first"], ["now 2", "soon", "now 3"]]


async def test_what_goes_first_takes_nothing_along(make: Make, batches: list[list[str]], patient: None) -> None:
    thread = make()
    later = thread.submit("later", Haste.LATER)
    async with asyncio.timeout(30):
        await thread.submit("first", Haste.FIRST)
        assert not later.done()
        thread.hasten()
        await later
    assert batches == [["first"], ["later"]]


async def test_what_nobody_waits_for_is_not_counted_among_those_who_come_back(held: Held, patient: None) -> None:
    await held.together("wait 1", "wait 2")
    stray = held.thread.submit("stray", Haste.LATER)
    early = held.thread.submit("wait 1", Haste.SOON)
    await asyncio.to_thread(str)
    async with asyncio.timeout(30):
        await asyncio.gather(stray, early, held.thread.submit("wait 2", Haste.SOON))
    assert held.batches[2:] == [["stray", "wait 1", "wait 2"]]


async def test_a_stray_settled_alone_does_not_change_how_many_come_back(held: Held, patient: None) -> None:
    await held.together("wait 1", "wait 2")
    stray = held.thread.submit("stray", Haste.LATER)
    held.thread.hasten()
    held.thread.hasten()
    async with asyncio.timeout(30):
        await stray
        early = held.thread.submit("wait 1", Haste.SOON)
        await asyncio.to_thread(str)
        await asyncio.gather(early, held.thread.submit("wait 2", Haste.SOON))
    assert held.batches[2:] == [["stray"], ["wait 1", "wait 2"]]


async def test_who_does_not_come_back_is_not_waited_for(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "GATHER", 3600)
    await held.together("wait 1", "wait 2", "wait 3")
    async with asyncio.timeout(30):
        await held.thread.submit("wait 1", Haste.SOON)


async def test_a_full_batch_does_not_wait(make: Make, patient: None) -> None:
    thread = make(limit=3)
    async with asyncio.timeout(30):
        await asyncio.gather(*(thread.submit(f"wait {n}", Haste.SOON) for n in range(6)))


async def test_closing_does_not_wait_either_and_works_off_what_is_queued(make: Make, patient: None) -> None:
    thread = make()
    waiting = thread.submit("wait", Haste.SOON)
    async with asyncio.timeout(30):
        await thread.aclose()
        assert await waiting == "WAIT"
    with pytest.raises(OutboxError, match="closed"):
        thread.submit("late")


async def test_a_single_caller_does_not_wait_for_others(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "GATHER", 3600)
    thread = make()
    async with asyncio.timeout(30):
        await thread.submit("wait", Haste.SOON)


async def test_an_exception_among_the_outcomes_reaches_only_its_caller(make: Make) -> None:
    thread = make()
    outcomes = await asyncio.gather(thread.submit("good"), thread.submit("bad"), return_exceptions=True)
    assert outcomes[0] == "GOOD"
    assert isinstance(outcomes[1], ValueError)


async def test_a_batch_that_raises_fails_those_in_it_and_the_thread_goes_on() -> None:
    def work(items: Sequence[str]) -> list[object]:
        if "bug" in items:
            raise RuntimeError("bug")
        return list(items)

    thread = Batching("test", work, limit=1)
    with pytest.raises(RuntimeError):
        await thread.submit("bug")
    assert await thread.submit("good") == "good"
    await thread.aclose()


async def test_a_caller_that_no_longer_waits_is_skipped(make: Make) -> None:
    thread = make()
    gone, here = thread.submit("gone"), thread.submit("here")
    gone.cancel()
    assert await here == "HERE"
