"""Reconciles a receiver's requests: signatures, sequences, and pairs of starts and ends."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from standardwebhooks import Webhook

from relay.events.envelope import LoggedEvent, RoomEvent, StreamEvent
from relay.events.speech import SpeechEnded, SpeechStarted, TranscriptFinal, TranscriptInterim, UtteranceCompleted
from relay.events.stream import StreamEnded, StreamStarted
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import Received, Receiver


@dataclass
class Stream:
    """One stream as received, each event once."""

    events: list[StreamEvent] = field(default_factory=list)
    duplicates: int = 0

    @property
    def identity(self) -> str:
        return self.events[0].participant.identity

    @property
    def room(self) -> str:
        return self.events[0].room.name

    @property
    def text(self) -> str:
        return " ".join(event.data.text for event in self.events if isinstance(event, TranscriptFinal))

    @property
    def ends(self) -> list[str]:
        return [event.data.reason for event in self.events if isinstance(event, SpeechEnded)]

    @property
    def end(self) -> StreamEnded | None:
        last = self.events[-1]
        return last if isinstance(last, StreamEnded) else None

    def types(self) -> list[str]:
        return [event.type for event in self.events]


def told(requests: Sequence[Received], secret: str) -> list[Stream]:
    """The streams in the order of their first request.

    Asserts the invariants that hold at any moment: signatures verify, sequences only grow, and each request names the
    one before it, or one before that where only interims are in between: an interim that is answered after more than
    half a second does not count as sent. ``requests`` are the accepted ones, in the order of the answers.
    """
    streams: dict[str, Stream] = {}
    for event, again in _received(requests, secret):
        if isinstance(event, StreamEvent):
            stream = streams.setdefault(event.stream.id, Stream())
            if again:
                stream.duplicates += 1
            else:
                stream.events.append(event)
    return list(streams.values())


def streams(receiver: Receiver) -> list[Stream]:
    """The streams of what the receiver has accepted, signed with the tests' secret."""
    return told(receiver.answered, SECRET)


def told_of_rooms(requests: Sequence[Received], secret: str) -> dict[str, list[RoomEvent]]:
    """The rooms' own streams by their ids, with the same assertions."""
    streams: dict[str, list[RoomEvent]] = defaultdict(list)
    for event, again in _received(requests, secret):
        if isinstance(event, RoomEvent) and not again:
            streams[event.stream.id].append(event)
    return dict(streams)


def _received(requests: Sequence[Received], secret: str) -> Iterator[tuple[LoggedEvent, bool]]:
    """Each event, and whether it came before."""
    seen: set[str] = set()
    last: dict[str, int] = {}
    sent: dict[str, set[int]] = defaultdict(lambda: {0})
    for request in requests:
        event = _verified(request, secret)
        if event.id not in seen:
            before, now = last.get(event.stream.id, 0), event.stream.sequence
            assert now > before, f"{event.type} went back from {before} to {now}"
            named = int(request.headers["relay-previous-sequence"])
            assert named in sent[event.stream.id], (
                f"{event.type} {now} was sent after {named}; the receiver has {before} last: something is missing"
            )
            last[event.stream.id] = now
            if not isinstance(event, TranscriptInterim):
                sent[event.stream.id] = set()
            sent[event.stream.id].add(now)
        yield event, event.id in seen
        seen.add(event.id)


@lru_cache(maxsize=10_000)
def _verified(request: Received, secret: str) -> LoggedEvent:
    Webhook(secret).verify(request.body, request.headers, json_parse=False)
    assert isinstance(request.event, LoggedEvent)
    assert request.event.id == request.id
    return request.event


def assert_whole(stream: Stream) -> None:
    """Assert the invariants of an ended stream: started once, ended once, each utterance complete."""
    types = stream.types()
    assert types[0] == "stream.started"
    assert types[-1] == "stream.ended"
    assert types.count("stream.started") == types.count("stream.ended") == 1
    by_utterance: dict[str, list[StreamEvent]] = defaultdict(list)
    for event in stream.events:
        if event.utterance is not None and not event.type.startswith(("vad.", "turn.")):
            by_utterance[event.utterance.id].append(event)
    for events in by_utterance.values():
        kinds = [type(event) for event in events]
        assert kinds.count(SpeechStarted) == kinds.count(SpeechEnded) == 1, kinds
        assert kinds.index(SpeechStarted) < kinds.index(SpeechEnded) < kinds.index(UtteranceCompleted)
        # Late text completes it again, and names the completion before.
        completions = [event for event in events if isinstance(event, UtteranceCompleted)]
        former = [None, *(event.utterance.revision for event in completions[:-1])]
        assert [event.data.revises for event in completions] == former
        completed = completions[-1]
        finals = [event.data.text for event in events if isinstance(event, TranscriptFinal)]
        assert completed.data.text == " ".join(finals)
        revisions = [event.utterance.revision for event in events if event.utterance is not None]
        assert revisions == sorted(set(revisions))


def of(streams: Iterable[Stream], identity: str) -> list[Stream]:
    return [stream for stream in streams if stream.identity == identity]


def started(stream: Stream) -> StreamStarted:
    first = stream.events[0]
    assert isinstance(first, StreamStarted)
    return first
