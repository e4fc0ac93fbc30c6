"""``capture.away_after``: the silence after which the log has a user as away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from relay.capture.detectors import Providers
from relay.clock import SystemClock
from relay.config.capture import Capture
from relay.config.models import Speech
from relay.events.detectors import UserStateChanged
from relay.events.envelope import StreamEvent
from relay.outbox.outbox import Outbox
from relay.recording.track import Listeners
from tests.support.audio.speech import Feed, a_track

LIVEKITS_OWN_S = 15.0


@asynccontextmanager
async def silence(
    folder: Path, away_after: str | None, event_listener: Callable[[StreamEvent], None]
) -> AsyncIterator[None]:
    """A track on which nobody says anything, listened to as config.yaml has it."""
    capture = Capture.model_validate({"away_after": away_after, "stt": "none"})
    clock = SystemClock()
    outbox = await Outbox.open(f"sqlite:///{folder}/relay.db", name="job", clock=clock)
    providers = Providers(capture.vad, capture.stt)
    listeners = Listeners(
        outbox, providers.detectors(), clock, capture=capture, speech=Speech(), event_listeners=[event_listener]
    )
    feed = Feed()
    listener = await listeners(a_track(feed))
    assert listener is not None
    feed.put(bytes(32_000))
    try:
        yield
    finally:
        await listener.close("unpublished")
        await providers.aclose()
        await outbox.aclose()


async def test_who_says_nothing_for_so_long_is_away(tmp_path: Path) -> None:
    away = asyncio.Event()

    def look(event: StreamEvent) -> None:
        if isinstance(event, UserStateChanged) and event.data.new_state == "away":
            away.set()

    loop = asyncio.get_running_loop()
    began = loop.time()
    async with silence(tmp_path, "1s", look):
        async with asyncio.timeout(LIVEKITS_OWN_S - 3):
            await away.wait()
        assert loop.time() - began >= 1.0


async def test_without_it_nobody_ever_is(tmp_path: Path) -> None:
    seen: list[StreamEvent] = []
    async with silence(tmp_path, None, seen.append):
        await asyncio.sleep(LIVEKITS_OWN_S + 1)  # what must not come has this long to come
    assert seen
    assert not [event for event in seen if isinstance(event, UserStateChanged)]
