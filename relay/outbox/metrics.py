"""What the log counts: events, and how long it takes to write them."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from relay.outbox.records import Record
from relay.telemetry.metrics import Counter, Gauge, Histogram, MetricFamily

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class LogMetrics:
    """Counted by a process that writes the log: on its event loop, and transactions on the thread that writes.

    ``process`` is which: the service, or the one of a room. The series of different threads are kept apart by it.
    """

    def __init__(self, process: Literal["service", "room"] = "service") -> None:
        self._process = (process,)
        self.on_append: Callable[[Sequence[Record]], None] | None = None
        """Called for every append: for traces."""
        self.events = Counter("events", "Events appended, by type. Without the relay's events about itself.", ("type",))
        self.append_s = Histogram(
            "append_seconds", "Time from the detection of an event to its commit in the log.", _SECONDS
        )
        self.transaction_s = Histogram(
            "log_transaction_seconds",
            "Time of a write transaction, waiting for other writers included.",
            _SECONDS,
            ("process",),
        )

    @property
    def families(self) -> tuple[Counter | Histogram, ...]:
        return self.events, self.append_s, self.transaction_s

    def written(self, seconds: float) -> None:
        """A transaction took this long."""
        self.transaction_s.observe(seconds, self._process)

    def appended(self, records: Sequence[Record], seconds: float) -> None:
        """These events were committed this long after they were made."""
        for record in records:
            self.events.inc((record.type,))
        self.append_s.observe(seconds, times=len(records))
        if self.on_append is not None:
            self.on_append(records)


def file_gauges(url: str) -> tuple[MetricFamily, ...]:
    """The size of the log's files and the space that is left for them, read from the file system."""
    place = sa.make_url(url)
    path = Path(place.database or "") if place.get_backend_name() == "sqlite" else None
    return (
        Gauge(
            "log_bytes", "Size of the log's file and write-ahead log; SQLite only.", lambda: _size(path) if path else {}
        ),
        Gauge(
            "log_disk_free_bytes",
            "Space left on the log's file system; SQLite only.",
            lambda: shutil.disk_usage(path.parent).free if path else {},
        ),
    )


def _size(path: Path) -> int:
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
