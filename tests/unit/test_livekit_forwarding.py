"""Publishing to a room that is slow, that fails, or where nobody reads: capture never notices."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from livekit import rtc

from relay.capture.health.error_guard import ErrorGuard
from relay.capture.livekit import forwarding
from relay.capture.livekit.forwarding import Forwarding, reads_events_only
from relay.events.envelope import StreamEvent
from relay.recording.recorder import StreamRecorder
from relay.speech.observations import Listening, Transcribed, VadEnded, VadStarted
from tests.support.outbox.outbox_store import HandClock
from tests.unit.timelines.play import T0, tracker


@dataclass
class Client:
    """Stands for a remote participant; its protocol is where the SDK keeps it."""

    protocol: int = 2
    kind: int = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD

    @property
    def _info(self) -> Any:
        return rtc._proto.participant_pb2.ParticipantInfo(client_protocol=self.protocol)


@dataclass
class SlowRoom:
    """A room whose connection can be held up or broken. Texts that went out are in ``streams`` and ``events``."""

    readers: dict[str, Client] = field(default_factory=lambda: {"alice": Client()})
    streams: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    broken: bool = False

    @property
    def remote_participants(self) -> dict[str, Client]:
        return self.readers

    @property
    def local_participant(self) -> "SlowRoom":
        return self

    def isconnected(self) -> bool:
        return True

    async def stream_text(self, *, topic: str, sender_identity: str, attributes: dict[str, str]) -> "SlowRoom":
        self.tried.set()
        await self.flowing.wait()
        if self.broken:
            raise rtc.StreamError("secret words were not sent")
        return self

    async def write(self, text: str) -> None:
        self.streams.append(text)

    async def aclose(self) -> None: ...

    async def publish_transcription(self, transcription: rtc.Transcription) -> None:
        self.events.append(transcription.segments[0].text)

    def room(self) -> rtc.Room:
        return cast("rtc.Room", self)


def events(*texts: str, utterance: str = "utt_0") -> list[StreamEvent]:
    """One utterance with these interims, whose final is the last of them."""
    machine = tracker()
    told = machine.observe(Listening(T0, T0), T0) + machine.observe(VadStarted(800, 200), T0 + 1000)
    for text in texts:
        told += machine.observe(Transcribed(text, final=False), T0 + 1500)
    told += machine.observe(VadEnded(2000), T0 + 2600)
    told += machine.observe(Transcribed(texts[-1], final=True), T0 + 2700)
    assert machine.deadline is not None
    return [_in(utterance, event) for event in told + machine.tick(machine.deadline)]


def _in(utterance: str, event: StreamEvent) -> StreamEvent:
    own = event.utterance and event.utterance.model_copy(update={"id": utterance})
    return event.model_copy(update={"utterance": own})


async def test_what_waits_is_replaced_by_what_is_newer_and_the_last_line_is_sent() -> None:
    slow = SlowRoom()
    publishing = Forwarding(slow.room())
    told = events("a", "a b", "a b c")
    publishing.take(told[0])
    for event in told[:5]:
        publishing.take(event)
    await asyncio.sleep(0)
    for event in told[5:]:
        publishing.take(event)
    assert slow.streams == [], "nobody waited for the room"
    slow.flowing.set()
    await publishing.aclose()
    assert slow.streams == slow.events
    assert len(slow.streams) <= 2
    assert slow.streams[-1] == "a b c"


async def test_a_guess_is_taken_back_with_something_that_is_not_empty() -> None:
    slow = SlowRoom()
    slow.flowing.set()
    publishing = Forwarding(slow.room())
    machine = tracker()
    told = machine.observe(Listening(T0, T0), T0) + machine.observe(VadStarted(800, 200), T0 + 1000)
    told += machine.observe(Transcribed("hm", final=False), T0 + 1500)
    told += machine.observe(VadEnded(2000), T0 + 2600) + machine.tick(T0 + 20_000)
    for event in told:
        publishing.take(event)
    await publishing.aclose()
    assert slow.streams == slow.events == [" "], "no chunk is sent of an empty text, and readers wait for one"


async def test_a_room_that_never_answers_holds_up_neither_taking_nor_closing() -> None:
    slow = SlowRoom()
    publishing = Forwarding(slow.room())
    for _ in range(3):
        for event in events("a", "a b"):
            publishing.take(event)
    async with asyncio.timeout(30):
        await publishing.aclose(within=0.05)
    assert slow.streams == []


async def test_a_room_that_fails_is_told_of_once_and_without_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    slow = SlowRoom(broken=True)
    slow.flowing.set()
    publishing = Forwarding(slow.room())
    for said in ("a", "b"):
        slow.tried.clear()
        for event in events(said, utterance=f"utt_{said}"):
            publishing.take(event)
        await slow.tried.wait()
    slow.broken = False
    for event in events("c d", utterance="utt_c"):
        publishing.take(event)
    await publishing.aclose()
    assert slow.streams[-1] == "c d", "it goes on where it can"
    assert [record.getMessage() for record in caplog.records] == [
        "Transcripts cannot be published to the room now (StreamError)"
    ]


async def test_nothing_is_sent_where_nobody_reads() -> None:
    slow = SlowRoom(readers={})
    slow.flowing.set()
    publishing = Forwarding(slow.room())
    for event in events("a"):
        publishing.take(event)
    await publishing.aclose()
    assert not slow.tried.is_set()


async def test_of_too_many_segments_the_open_ones_are_spared_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "MOST_WAITING", 2)
    slow = SlowRoom()
    publishing = Forwarding(slow.room())
    for number, said in enumerate(("first", "second", "third")):
        for event in events(said, utterance=f"utt_{number}"):
            publishing.take(event)
    slow.flowing.set()
    await publishing.aclose()
    assert slow.streams == ["second", "third"], "all were closed: the oldest went"


def test_the_older_event_is_for_clients_that_do_not_make_it_themselves() -> None:
    """Holds the private field that says so (``Participant._info.client_protocol``) to the SDK's own message."""

    def needed(*clients: Client) -> bool:
        return reads_events_only(SlowRoom(readers={str(n): client for n, client in enumerate(clients)}).room())

    assert needed(Client(protocol=3), Client(protocol=2))
    assert not needed(Client(protocol=3), Client(protocol=4))
    assert not needed(Client(protocol=0, kind=rtc.ParticipantKind.PARTICIPANT_KIND_SIP))


async def test_what_fails_while_looking_on_does_not_reach_the_recording() -> None:
    class Log:
        def __init__(self) -> None:
            self.types: list[str] = []

        async def append(self, events: Sequence[StreamEvent]) -> None:
            self.types += [event.type for event in events]

    def broken(event: StreamEvent) -> None:
        raise TypeError("a fault of ours")

    guard, log, seen = ErrorGuard(), Log(), list[str]()
    recorder = StreamRecorder(tracker(), log, HandClock(T0), [guard(broken), lambda event: seen.append(event.type)])
    recorder.observe(Listening(T0, T0))
    recorder.observe(VadStarted(800, 200))
    await recorder.flush()
    recorder.close()
    assert log.types == seen == ["stream.started", "vad.speech_started", "speech.started"]
    assert guard.failures == 3
