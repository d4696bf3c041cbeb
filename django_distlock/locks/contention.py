"""What a refusal tells people: the lock's holder, or why nothing is granted."""

import os
from datetime import datetime

from django_distlock.arguments import printable
from django_distlock.leases.request import describe_process
from django_distlock.records import LABELLED, Refusal


def describe_contention(
    semaphore: str, refusal: Refusal, *, held_here: bool = False, age: float = 0
) -> str:
    """Return a sentence, as far as the store told `age` seconds ago."""
    if held_here:
        return (
            f"This thread or task holds {semaphore!r} itself; reentrant=True gives it the same "
            "lease once more."
        )
    text = _describe_refusal(semaphore, refusal)
    return text if age < 1 else f"{text} The store said so {age:.0f} s ago."


def _describe_refusal(semaphore: str, refusal: Refusal) -> str:
    holder, reason = printable(refusal.holder), printable(refusal.reason)
    if reason:
        until = f", until {_time(refusal.expires_at)}" if refusal.expires_at else ""
        last = f"; the last holder was {holder}" if holder else ""
        return f"{semaphore!r} is {reason}{until}{last}."
    if not holder:
        return f"Somebody else holds {semaphore!r}."
    which = "Another thread or task of this process" if _is_here(holder) else "Somebody else"
    since = f", since {_time(refusal.acquired_at)}" if refusal.acquired_at else ""
    return f"{which} holds {semaphore!r}: {holder}{since}{_until(refusal)}."


def _is_here(holder: str) -> bool:
    """Tell whether this describes a thread or task of this process."""
    labelled = LABELLED.fullmatch(holder)
    process = labelled[2] if labelled else holder
    return process.startswith(f"{describe_process(os.getpid())} ")


def _until(refusal: Refusal) -> str:
    """Return when the lease ends, if the store told anything."""
    if refusal.expires_at:
        return f", until {_time(refusal.expires_at)} unless it is renewed"
    return ", until it is released" if refusal.seen_at else ""


def _time(at: datetime) -> str:
    return at.isoformat(" ", "seconds")
