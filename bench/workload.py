"""The benches' workload: real events of about 1 KB, whose text carries a marker that the receiver times."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from relay.config.endpoint import Endpoint
from relay.dispatch.signing import new_secret
from relay.events.envelope import StreamEvent, StreamRef, UtteranceRef
from relay.events.samples import SAMPLES
from relay.events.speech import TranscriptFinal, TranscriptInterim
from relay.ids import event_id

_PADDING = " and so on" * 12


def final(stream_id: str, sequence: int, utterance: int) -> TranscriptFinal:
    """A ``transcript.final`` created now."""
    sample = SAMPLES["transcript.final"]
    assert isinstance(sample, TranscriptFinal)
    text = f"bm|{stream_id}|{sequence}|{time.time_ns()}|mb{_PADDING}"
    return sample.model_copy(
        update={
            "id": event_id(stream_id, sequence),
            "stream": StreamRef(id=stream_id, sequence=sequence, track_sid="TR_bench", track_source="microphone"),
            "utterance": UtteranceRef(id=f"utt_{utterance}", index=utterance, revision=999),
            "data": sample.data.model_copy(update={"text": text}),
            "timing": sample.timing.model_copy(update={"emitted_at": datetime.now(UTC)}),
        }
    )


def interim(stream_id: str, sequence: int, utterance: int, revision: int) -> TranscriptInterim:
    """A ``transcript.interim`` created now; it has no marker, because it may be dropped."""
    sample = SAMPLES["transcript.interim"]
    assert isinstance(sample, TranscriptInterim)
    return sample.model_copy(
        update={
            "id": event_id(stream_id, sequence),
            "stream": StreamRef(id=stream_id, sequence=sequence, track_sid="TR_bench", track_source="microphone"),
            "utterance": UtteranceRef(id=f"utt_{utterance}", index=utterance, revision=revision),
            "timing": sample.timing.model_copy(update={"emitted_at": datetime.now(UTC)}),
        }
    )


def finals(stream_id: str, count: int, *, after: int = 0) -> Iterator[StreamEvent]:
    for sequence in range(after + 1, after + count + 1):
        yield final(stream_id, sequence, utterance=sequence)


@dataclass(frozen=True, slots=True)
class Load:
    """The events to send, at full speed."""

    lanes: int
    concurrency: int
    """How many requests are in flight at once."""
    events: int
    """In total, evenly over the lanes."""
    producing: float = 0
    """How many events a second another process appends during the run."""

    def __str__(self) -> str:
        beside = f", {self.producing:g} appended a second meanwhile" if self.producing else ""
        return f"{self.lanes:>3} lanes, {self.concurrency:>3} at once{beside}"

    def finals(self, stream_id: str) -> Iterator[StreamEvent]:
        """One lane's events."""
        return finals(stream_id, self.events // self.lanes)


def endpoint(name: str, url: str, concurrency: int) -> Endpoint:
    return Endpoint.model_validate({"name": name, "url": url, "secret": new_secret(), "concurrency": concurrency})
