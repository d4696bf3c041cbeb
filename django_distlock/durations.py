"""Durations in the form of `90s`, `15m`, `12h`, `1d`."""

import re
from datetime import timedelta
from functools import lru_cache
from typing import Final

UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def parse_duration(text: str) -> timedelta:
    """Return the duration of a number with a unit (s, m, h, d); ValueError for any other text."""
    match = re.fullmatch("([0-9]{1,6})([smhd])", text)
    if not match:
        raise ValueError(f"{text!r} is not a duration; write 90s, 15m, 12h or 1d.")
    return timedelta(seconds=int(match[1]) * UNITS[match[2]])


def format_duration(duration: timedelta) -> str:
    """Return the duration in its two largest units, rounded down: `1d 3h`, `42s`."""
    return _format_seconds(max(0, int(duration.total_seconds())))


@lru_cache(maxsize=1024)  # most of the thousands of locks in a purge have the same age
def _format_seconds(seconds: int) -> str:
    parts = []
    for unit, size in UNITS.items():
        amount, seconds = divmod(seconds, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return " ".join(parts[:2]) or "0s"
