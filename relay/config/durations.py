"""Parses durations: ``250ms``, ``1.5s``, ``5m30s``, ``1h``, ``7d``, or a number of seconds."""

import re
from datetime import timedelta

LONGEST = timedelta(days=36500)
"""The system cannot represent or show times further ahead than this."""

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_WRITTEN = re.compile(r"\s*".join(rf"(?:{_NUMBER}\s*{unit}(?![a-z]))?" for unit in _SECONDS))
_BARE = re.compile(_NUMBER)
_MOST_CHARACTERS = 40


def parse_duration(value: object) -> timedelta:
    """Parse a duration of config.yaml. Raises ``ValueError`` for anything else."""
    if isinstance(value, timedelta):
        return value
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError("not a duration; write 250ms, 10s, 5m, 5m30s, 1h, 7d or a number of seconds")
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"too long; write {LONGEST.days}d or less")
    return timedelta(seconds=seconds)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, int) and abs(value) > 10**_MOST_CHARACTERS:  # Python refuses to format a very long one
        return None
    written = str(value).strip()
    if len(written) > _MOST_CHARACTERS:
        return None
    if bare := _BARE.fullmatch(written):
        return float(bare[1])
    parts = _WRITTEN.fullmatch(written)
    if parts is None or not written:
        return None
    return sum(float(number) * unit for number, unit in zip(parts.groups(), _SECONDS.values(), strict=True) if number)
