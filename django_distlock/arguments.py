"""Arguments: what each has to be, and what to write instead of something else."""

import math
import re
import sys
from datetime import timedelta
from functools import lru_cache
from types import NoneType
from typing import Final, TypeVar

from django.utils.functional import Promise

T = TypeVar("T")

PLAIN: Final = frozenset({str, int, float, bool, NoneType})
LONGEST: Final = 3650 * 24 * 60 * 60.0
"""Seconds that a duration can have: ten years, about."""
LONGEST_AGE: Final = timedelta(days=36_500)
SHORTEST_TTL: Final = 0.001
LONGEST_LABEL: Final = 200
SHOWN: Final = 80
"""Characters of a value that a message shows."""
UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def plain(value: T) -> T:
    """Return a text or number as an exact str, int or float; anything else as it is.

    A member of `class Job(str, Enum)` equals its value, but an f-string, str() and repr() show
    something else. So these are the base types' own methods, which no subclass overrides.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, str):
        return str.__str__(value)  # type: ignore[return-value]
    if isinstance(value, int):
        return int.__int__(value)  # type: ignore[return-value]
    if isinstance(value, float):
        return float.__float__(value)  # type: ignore[return-value]
    return value


def show(value: object) -> str:
    """Return a value as it is written in code, its beginning at least."""
    try:
        text = repr(value)
    except ValueError:
        return "an int of too many digits to show"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def printable(text: str) -> str:
    """Return the text with each character escaped that isn't shown as itself.

    Semaphores and holders may come from strangers: a terminal would obey an escape sequence, and
    a mark for right-to-left text would show the rest of the line in another order.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def type_of(value: object) -> str:
    """Return what a value is that should be a text."""
    return "a lazy text: write str(…)" if isinstance(value, Promise) else type(value).__name__


def validate_seconds(
    name: str, value: float, least: float, most: float, none: str | None = None
) -> float:
    """Return the duration as a plain number; where None is allowed, `none` says what it means."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        or_none = "" if none is None else " or None"
        raise TypeError(f"{name} is a number of seconds{or_none}, not {show(value)}.")
    seconds = plain(value)
    if not least <= seconds <= most:
        but_none = f"; {none}" if none else ""
        raise ValueError(
            f"{name} is {show(seconds)}, but must be from {least:g} to {most:.0f} seconds"
            f"{but_none}."
        )
    return seconds


def validate_whole(
    name: str, value: int, least: int, none: str | None = None, *, most: int = sys.maxsize
) -> int:
    """Return the number as a plain one. `none` is as in validate_seconds()."""
    if isinstance(value, bool) or not isinstance(value, int):
        or_none = "" if none is None else " or None"
        raise TypeError(f"{name} is a whole number{or_none}, not {show(value)}.")
    number = plain(value)
    if not least <= number <= most:
        but_none = f"; {none}" if none else ""
        raise ValueError(f"{name} is {show(number)}, but must be from {least} to {most}{but_none}.")
    return number


def validate_text(name: str, value: object, meaning: str = "") -> str:
    """Return the text as a plain one."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str{meaning}, not {type_of(value)}.")
    return plain(value)


def validate_timeout(timeout: float | None) -> float:
    """Return the wait in seconds, infinite for None, or raise for what can't be waited."""
    if timeout is None:
        return math.inf
    return validate_seconds("timeout", timeout, 0, LONGEST, "None waits as long as it takes")


def validate_holds(
    min_hold: float | None, max_hold: float | None, longest: float = LONGEST
) -> tuple[float, float]:
    """Return the two in seconds, 0 and infinite for None, or raise for what they can't be."""
    at_least, at_most = 0.0, math.inf
    if min_hold is not None:
        at_least = validate_seconds("min_hold", min_hold, 0, longest, "")
    if max_hold is not None:
        at_most = validate_seconds("max_hold", max_hold, SHORTEST_TTL, longest, "")
    if at_least > at_most:
        raise ValueError(f"min_hold, {min_hold!r}, can't be more than max_hold, {max_hold!r}.")
    return at_least, at_most


def validate_bool(name: str, value: object) -> None:
    """Raise for what isn't a bool: a text such as "False" would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {show(value)}.")


def validate_alias(alias: object) -> str:
    """Return the alias of a store as a plain text."""
    return validate_text("backend", alias, ", an alias in DISTLOCK")


def validate_label(label: object) -> str:
    """Return the label as a plain text."""
    text = validate_text("label", label)
    if len(text) > LONGEST_LABEL:
        raise ValueError(
            f"label has {len(text)} characters, but may have {LONGEST_LABEL}: it tells people what "
            "the lock is for."
        )
    return text


def validate_age(name: str, value: object) -> timedelta:
    """Return the time that has passed since something."""
    if not isinstance(value, timedelta):
        raise TypeError(f"{name} is a timedelta, not {show(value)}.")
    if not timedelta() <= value <= LONGEST_AGE:
        raise ValueError(f"{name} is {value}, but must be from 0 to {LONGEST_AGE.days} days.")
    return value


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
