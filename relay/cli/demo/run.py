"""Runs the whole relay on one machine: files replace a room, a bundled receiver replaces yours."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from relay.api.appends import Appends
from relay.app.delivery import delivering
from relay.capture.audio.source import Listener, Track
from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Providers
from relay.capture.plugins import installing
from relay.cli.commands.ui import live_page
from relay.cli.demo.tally import Report, Tally
from relay.cli.receiver import Arrival, VerifyingReceiver
from relay.clock import SystemClock
from relay.config.capture import Capture, Provider
from relay.config.endpoint import Endpoint
from relay.config.models import Speech
from relay.dispatch.signing import new_secret
from relay.errors import ProviderError, RelayError, StreamTaken, first_of
from relay.events.catalog import DEFAULT_EVENTS, matches
from relay.events.envelope import Delivery, ParticipantRef, RoomRef, StreamEvent
from relay.events.speech import UtteranceCompleted
from relay.outbox.operator.access import open_log
from relay.outbox.outbox import Outbox
from relay.outbox.records import Record
from relay.recording.track import Listeners

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


ARRIVES_WITHIN_S = 30.0
_FORWARD = "yours"
REFUSED = frozenset({3, 9, 21})
"""The new events whose first attempt the receiver answers with 503, to show retries. Counted in order of arrival,
without interims, which are tried only once."""


class Audience(Protocol):
    """An observer of the demo."""

    def heard(self, speaker: str, *, silent: bool) -> None: ...

    def delivered(self, arrival: Arrival, event: StreamEvent) -> None: ...

    def refused(self, arrival: Arrival) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    report: Report
    example: Arrival | None
    """The first accepted webhook of an utterance with its text and duration; without one, the first of all."""


@dataclass(frozen=True, slots=True)
class Forward:
    """The user's receiver, beside the demo's own."""

    url: str
    secret: str


class DemoReceiver:
    """Accepts verified requests, except for the first attempt of a few."""

    def __init__(self, audience: Audience, tally: Tally) -> None:
        self._audience = audience
        self._tally = tally
        self._seen: set[str] = set()
        self._first: Arrival | None = None
        self._telling: Arrival | None = None
        self.progress = asyncio.Event()

    @property
    def example(self) -> Arrival | None:
        """One webhook that shows what the relay is for."""
        return self._telling or self._first

    def unverified(self, arrival: Arrival) -> None:
        if not arrival.verified:
            self._tally.take(arrival, accepted=False)

    def answer(self, arrival: Arrival) -> int | None:
        refuse = False
        if arrival.event["type"] != "transcript.interim" and arrival.headers["webhook-id"] not in self._seen:
            self._seen.add(arrival.headers["webhook-id"])
            refuse = len(self._seen) in REFUSED
        event = self._tally.take(arrival, accepted=not refuse)
        if refuse:
            self._audience.refused(arrival)
        elif event is not None:
            self._first = self._first or arrival
            if isinstance(event, UtteranceCompleted) and event.data.text and event.data.duration_ms is not None:
                self._telling = self._telling or arrival
            self._audience.delivered(arrival, event)
        self.progress.set()
        return 503 if refuse else None


@contextlib.asynccontextmanager
async def run_demo(
    speakers: Sequence[DemoSpeaker],
    audience: Audience,
    *,
    fast: bool,
    forward: Forward | None,
    page: Callable[[str], None] | None,
) -> AsyncIterator[Outcome]:
    """Run all speakers at once, deliver what is heard, and keep the log while the body runs.

    ``page``: told the URL of the live page; None for no page. Raises ``AudioError`` for an unreadable file.
    """
    try:
        async with _running(speakers, audience, fast=fast, forward=forward, page=page) as outcome:
            yield outcome
    except* RelayError as errors:
        raise first_of(errors) from None


@contextlib.asynccontextmanager
async def _running(
    speakers: Sequence[DemoSpeaker],
    audience: Audience,
    *,
    fast: bool,
    forward: Forward | None,
    page: Callable[[str], None] | None,
) -> AsyncIterator[Outcome]:
    tracks = [_track(speaker, index, fast) for index, speaker in enumerate(speakers)]
    clock = SystemClock()
    capture = Capture(stt=Provider(provider="moonshine"))
    providers = Providers(capture.vad, capture.stt)
    tally = Tally()
    receiver = DemoReceiver(audience, tally)
    secret = new_secret()
    appends = Appends(asyncio.Event())
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="speech-relay-demo-"))
        url = f"sqlite:///{folder}/relay.db"
        outbox = await Outbox.open(url, name="demo", clock=clock)
        server = VerifyingReceiver([secret], receiver.unverified, receiver.answer)
        stack.push_async_callback(outbox.aclose)
        await server.start()
        stack.push_async_callback(server.stop)
        endpoints = [_endpoint("demo", server.url, secret)]
        if forward is not None:
            endpoints.append(_endpoint(_FORWARD, forward.url, forward.secret))
        if page is not None:
            log = await stack.enter_async_context(open_log(url, clock))
            page(await stack.enter_async_context(live_page(log, endpoints, appends=appends, read_only=False)))
        await stack.enter_async_context(delivering(outbox, endpoints, clock, grace_s=5.0, also_ring=appends.ring))
        stack.push_async_callback(providers.aclose)
        listeners = Listeners(outbox, providers.detectors(), clock, capture=capture, speech=Speech(), realtime=not fast)
        async with asyncio.TaskGroup() as group:
            heard = [group.create_task(_listen(listeners, track, audience)) for track in tracks]
        streams = {task.result() for task in heard}
        await _arrived(receiver, tally, streams)
        missing = await _missing(outbox, streams, tally)
        if forward is not None:
            missing += await _not_forwarded(outbox)
        yield Outcome(tally.report(missing=missing), receiver.example)


async def _listen(listeners: Listeners, track: Track, audience: Audience) -> str:
    listener = await listeners(track)
    if listener is None:
        raise StreamTaken("another process writes to the demo's new log")
    audience.heard(track.participant.identity, silent=False)
    await _closed_after(listener)
    audience.heard(track.participant.identity, silent=True)
    return listener.stream_id


async def _closed_after(listener: Listener) -> None:
    try:
        await listener.ended()
    finally:
        await listener.close("unpublished")


async def _arrived(receiver: DemoReceiver, tally: Tally, streams: set[str]) -> None:
    """Wait until the last event of every stream has arrived; later ones are reported as missing."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ARRIVES_WITHIN_S):
            while not streams <= tally.ended:
                receiver.progress.clear()
                await receiver.progress.wait()


async def _missing(outbox: Outbox, streams: set[str], tally: Tally) -> int:
    """How many events of the log should have arrived and have not."""
    missing = 0
    for stream in streams:
        async for record in _history(outbox, stream):
            if record.delivery is Delivery.DURABLE and matches(record.type, DEFAULT_EVENTS):
                missing += record.id not in tally.arrived
    return missing


async def _not_forwarded(outbox: Outbox) -> int:
    """How many events the user's own receiver has not accepted, after a while."""
    left = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ARRIVES_WITHIN_S):
            while left := (await outbox.lanes.unsettled())[_FORWARD]:  # noqa: ASYNC110 - the log is polled, it has no notification
                await asyncio.sleep(0.1)
    return left


async def _history(outbox: Outbox, stream: str) -> AsyncIterator[Record]:
    after = 0
    while records := await outbox.history(stream, after=after):
        for record in records:
            yield record
        after = records[-1].sequence


def _endpoint(name: str, url: str, secret: str) -> Endpoint:
    return Endpoint.model_validate({"name": name, "url": url, "secret": SecretStr(secret)})


def _track(speaker: DemoSpeaker, index: int, fast: bool) -> Track:
    return Track(
        room=RoomRef(sid="RM_demo", name="demo"),
        participant=ParticipantRef(
            sid=f"PA_{index}", identity=speaker.identity, name=speaker.identity, kind="standard", attributes={}
        ),
        sid=f"TR_{index}",
        source="file",
        audio=WavSource(speaker.file, realtime=not fast),
        subscribed_at=time.time_ns() // 1_000_000,
    )
