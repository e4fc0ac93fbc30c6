"""The newest events of one stream, read once and shared by its lanes. Pure."""

from collections import deque
from collections.abc import Iterable, Sequence

from relay.events.envelope import Delivery
from relay.outbox.records import Record

LENGTH = 128
"""Events kept per stream. A lane that is further behind reads for itself."""
_UTTERANCES = 256


class StreamTail:
    """A contiguous range of a stream's log, up to the newest event that was read."""

    __slots__ = ("_latest", "_records", "base", "more", "number", "reading")

    def __init__(self, number: int, position: int) -> None:
        self.number = number
        """The log's own number of the stream."""
        self.base = position
        """The sequence before the first one kept."""
        self.more = True
        """Whether the log may hold events after the end."""
        self.reading = False
        """Whether a read after the end is in progress."""
        self._records: deque[Record] = deque()
        self._latest: dict[str, int] = {}

    @property
    def end(self) -> int:
        """The newest sequence that was read."""
        return self.base + len(self._records)

    def restart(self, position: int) -> None:
        """Restart after ``position``: a lane is ahead of the tail."""
        self._records.clear()
        self.base = position

    def extend(self, records: Iterable[Record]) -> None:
        """Add what was read. Known records are ignored; a gap (events were purged) restarts the tail."""
        kept, end = self._records, self.end
        for record in records:
            if record.sequence <= end:
                continue
            if record.sequence > end + 1:
                self.restart(record.sequence - 1)
            elif len(kept) == LENGTH:
                kept.popleft()
                self.base += 1
            kept.append(record)
            end = record.sequence
            self.note(record)

    def take(self, records: Sequence[Record]) -> None:
        """The log has grown by these records. If there are none, or some before them are missing, they must be read."""
        if records and records[0].sequence <= self.end + 1:
            self.extend(records)
        else:
            self.more = True

    def get(self, sequence: int) -> Record | None:
        """The event with this sequence; None if it is not kept."""
        offset = sequence - self.base - 1
        return self._records[offset] if 0 <= offset < len(self._records) else None

    def note(self, record: Record) -> None:
        """Remember the newest transcript of each utterance, which supersedes older interims."""
        if record.utterance is None or record.revision is None or not record.type.startswith("transcript."):
            return
        if record.revision > self._latest.get(record.utterance, 0):
            self._latest.pop(record.utterance, None)
            self._latest[record.utterance] = record.revision
            if len(self._latest) > _UTTERANCES:
                del self._latest[next(iter(self._latest))]

    def superseded(self, record: Record) -> bool:
        """Whether a later transcript of the same utterance is known."""
        return (
            record.delivery is Delivery.LATEST
            and record.utterance is not None
            and self._latest.get(record.utterance, 0) > (record.revision or 0)
        )
