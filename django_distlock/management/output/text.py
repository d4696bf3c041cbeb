"""Texts for people: escaped, aligned, and in words."""

import unicodedata
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from django.utils.timezone import localtime

from django_distlock.arguments import format_duration, printable
from django_distlock.records import LockInfo, LockState, Pause


def cells(text: str) -> int:
    """Return how many cells of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def count_of(number: int, thing: str) -> str:
    """Return `1 lock`, `2 locks`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def time_of(moment: datetime) -> str:
    """Return the time in the site's time zone, which it names."""
    return localtime(moment).isoformat(" ", "seconds")


def ago(lock: LockInfo, moment: datetime | None) -> str:
    """Return how long before the listing that was, such as `2h 30m ago`; `-` if it isn't known."""
    return "-" if moment is None else f"{format_duration(lock.seen_at - moment)} ago"


def state_of(lock: LockInfo) -> str:
    """Return the state in a word."""
    return "kept" if lock.kept and lock.state is LockState.HELD else lock.state.value


def time_left(lock: LockInfo) -> str:
    """Return how long the lease still lasts; with a minus, how long ago it ended."""
    if lock.expires_at is None:
        return "no end"
    left = lock.expires_at - lock.seen_at
    return f"-{format_duration(-left)}" if left < timedelta(0) else format_duration(left)


def holder_of(lock: LockInfo) -> str:
    """Return the holder, escaped."""
    return printable(lock.holder) or "unknown holder"


def pause_lines(pauses: Sequence[Pause]) -> Iterator[str]:
    """Yield two lines for each pause that is in force, or one that says that there is none."""
    for pause in pauses:
        paused = f"what begins with {printable(pause.prefix)}" if pause.prefix else "all locks"
        until = "until resumed" if pause.until is None else f"until {time_of(pause.until)}"
        reason = f": {printable(pause.reason)}" if pause.reason else ""
        by = f"by {printable(pause.by)}, " if pause.by else ""
        yield f"Paused: {paused}, {until}{reason}"
        yield f"    {by}since {time_of(pause.since)}"
    if not pauses:
        yield "No pauses."


def describe_lock(lock: LockInfo, *events: str) -> str:
    """Return the lock with its holder, and how long ago each of the events was.

    Such as `acquired` or `expired`; one that isn't known is left out.
    """
    moments = {
        "acquired": lock.acquired_at,
        "renewed": lock.renewed_at,
        "expired": lock.expires_at,
        "released": lock.expires_at,
    }
    known = [f"{event} {ago(lock, moment)}" for event in events if (moment := moments[event])]
    return f"{printable(lock.semaphore)}: {', '.join([holder_of(lock), *known])}"
