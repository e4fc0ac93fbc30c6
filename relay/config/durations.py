"""Durations as people write them: ``250ms``, ``10s``, ``5m``, ``1h``, ``7d``, or a number of seconds."""

import re
from datetime import timedelta

_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


def parse_duration(value: object) -> timedelta:
    """The duration that a value of config.yaml means. Raises ``ValueError`` for anything that is not one."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        written = _WRITTEN.fullmatch(str(value).strip())
        if written:
            try:
                return timedelta(seconds=float(written[1]) * _SECONDS[written[2]])
            except OverflowError:
                pass
    raise ValueError("not a duration; write 250ms, 10s, 5m, 1h, 7d or a number of seconds")
