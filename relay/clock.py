"""Time, injected so that tests can control it."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The monotonic clock that also runs while the machine sleeps, as the wall clock does; Linux has it.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """The wall time, and elapsed time separately, because the wall clock can be set."""

    def now_ms(self) -> int:
        """Wall time in integer milliseconds since 1970-01-01 UTC."""
        ...

    def steady_ms(self) -> int:
        """Milliseconds since an arbitrary moment, at a constant pace: setting the clock does not change it."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def steady_ms(self) -> int:
        return time.clock_gettime_ns(_STEADY) // 1_000_000


class SharedClock:
    """The wall clock of a server, for processes on several hosts: carried on by the elapsed time here.

    A host whose own wall clock is wrong, or is set, has the same time as the others.
    """

    def __init__(self, local: Clock) -> None:
        self._local = local
        self._ahead: int | None = None

    def measured(self, before: int, there: int, after: int) -> None:
        """The server's clock said ``there``, some time between two readings of ``steady_ms`` here."""
        least, most = there - after, there - before
        if self._ahead is None:
            self._ahead = (least + most) // 2
        self._ahead = min(max(self._ahead, least), most)

    def now_ms(self) -> int:
        """See ``Clock``. Before the first measurement it is this host's."""
        return self._local.now_ms() if self._ahead is None else self._local.steady_ms() + self._ahead

    def steady_ms(self) -> int:
        return self._local.steady_ms()


def span(milliseconds: int) -> str:
    """A duration in its largest unit: ``3 min``."""
    return next((f"{milliseconds // size} {unit}" for size, unit in _UNITS if milliseconds >= size), "0 s")


def epoch_ms(moment: datetime) -> int:
    """The wall time in whole epoch milliseconds of an aware datetime."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def rfc3339(moment: datetime) -> str:
    """An aware datetime as the relay writes times wherever programs read them: ``2026-11-21T10:15:05.482Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instant(epoch_ms: int) -> datetime:
    """The aware UTC datetime of a wall time in epoch milliseconds, exact to the millisecond."""
    seconds, millis = divmod(epoch_ms, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=millis * 1000)
