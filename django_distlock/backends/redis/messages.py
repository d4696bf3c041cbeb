"""The scripts' arguments for each action, and the meaning of their answers."""

import json
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.fields import to_datetime
from django_distlock.records import (
    KEPT,
    LOST,
    Claim,
    Grant,
    LockInfo,
    LockState,
    Owner,
    Pause,
    Refusal,
    Renewal,
    RenewalOutcome,
    WaiterInfo,
)

from .keys import KeySpace
from .places import Keys
from .scripts import (
    ACQUIRE,
    DESCRIBE,
    FORCE_RELEASE,
    PAUSE,
    PAUSES,
    RELEASE,
    RENEW,
    RESUME,
    SCAN,
    WAITERS,
    Call,
)

UNLIMITED: Final = -1
"""PTTL of a key that doesn't expire."""
INACCURACY: Final = 100_000
"""Microseconds by which the end of a lock may differ from its grant and its ttl: the script that
grants it reads the clock, and may be interrupted before it sets the end."""


def acquire_call(keys: Keys, owner: str, ttl: float | None, holder: str) -> tuple[Call, Call]:
    """Return the call, and the one that undoes it."""
    acquire = Call(ACQUIRE, keys, (owner, _milliseconds(ttl), _quote(holder)))
    return acquire, Call(RELEASE, keys, (owner, 0))


def read_grant(answer: Any, ttl: float | None) -> Grant | Refusal:
    if len(answer) > 2:
        return _read_refusal(answer)
    token, at = map(int, answer)
    return Grant(token, to_datetime(at), _end(at, ttl))


def _read_refusal(answer: list[Any]) -> Refusal:
    if answer[0] == b"paused":
        _, value, at = answer
        pause = read_pause("", value)
        return Refusal(reason=pause.refusal, expires_at=pause.until, seen_at=to_datetime(int(at)))
    value, kept, left, at = answer
    lock, now = _read_value(value), int(at)
    return Refusal(
        lock["holder"],
        to_datetime(lock["acquired_at"]),
        None if left == UNLIMITED else to_datetime(_end_of_lock(now, left)),
        to_datetime(now),
        KEPT if kept else "",
    )


def renew_call(keys: Sequence[str], leases: list[Claim]) -> Call:
    """Return the call for leases whose locks have these keys."""
    owners = [(lease.owner, _milliseconds(lease.ttl)) for lease in leases]
    return Call(RENEW, keys, [*chain.from_iterable(owners)])


def read_renewals(leases: list[Claim], answer: Any) -> dict[str, Renewal]:
    at, renewed = answer
    return {
        Owner(lease.owner): (
            Renewal(RenewalOutcome.RENEWED, _end(int(at), lease.ttl)) if is_ours else LOST
        )
        for lease, is_ours in zip(leases, renewed, strict=True)
    }


def release_call(keys: Keys, owner: str, keep: float) -> Call:
    return Call(RELEASE, keys, (owner, _milliseconds(keep)))


def force_release_call(keys: Keys, token: int) -> Call:
    return Call(FORCE_RELEASE, keys, (token,))


def scan_call(cursor: bytes | int, pattern: str, number: int) -> Call:
    """Return the call that looks at the next keys of a server."""
    return Call(SCAN, (), (cursor, pattern, number))


def describe_call(keys: Keys) -> Call:
    return Call(DESCRIBE, keys, ())


def read_lock(semaphore: str, answer: list[Any]) -> LockInfo:
    value, kept, left, at, waiting = answer
    lock, now = _read_value(value), int(at)
    acquired_at = lock["acquired_at"]
    ends = None if left == UNLIMITED else _end_of_lock(now, left)
    renewed = None
    if ends is not None and not kept and "ttl" in lock:
        renewed = ends - lock["ttl"] * 1000
    is_renewed = renewed is not None and renewed > acquired_at + INACCURACY
    return LockInfo(
        semaphore=semaphore,
        state=LockState.HELD,
        token=lock["token"],
        holder=lock["holder"],
        acquired_at=to_datetime(acquired_at),
        expires_at=None if ends is None else to_datetime(ends),
        seen_at=to_datetime(now),
        renewed_at=to_datetime(renewed) if renewed is not None and is_renewed else None,
        kept=bool(kept),
        waiting=waiting,
    )


def _end_of_lock(now: int, left: int) -> int:
    """Return when it expires: Redis counts milliseconds."""
    return (now // 1000 + left) * 1000


def _read_value(value: bytes) -> dict[str, Any]:
    """Return what the value of a lock's key says."""
    try:
        described: dict[str, Any] = json.loads(value)
    except ValueError as error:
        raise LockBackendUnavailable(
            "The key of a lock contains something else: another program writes to distlock:…"
        ) from error
    return described


def waiters_call(keys: Keys) -> Call:
    return Call(WAITERS, keys, ())


def read_waiters(answer: list[bytes]) -> list[WaiterInfo]:
    return [
        WaiterInfo(json.loads(holder), to_datetime(int(at)))
        for at, holder in zip(answer[::2], answer[1::2], strict=True)
    ]


def pause_call(keys: KeySpace, prefix: str, seconds: float | None, reason: str, by: str) -> Call:
    """Return the call, which a cluster refuses: its keys are of different slots."""
    names = keys.pauses, keys.lock("a"), keys.lock("b")
    text = json.dumps({"reason": reason, "by": by})
    return Call(PAUSE, names, (keys.start(prefix), _milliseconds(seconds), text))


def resume_call(keys: KeySpace, prefix: str) -> Call:
    return Call(RESUME, (keys.pauses,), (keys.start(prefix),))


def read_pause(prefix: str, value: bytes) -> Pause:
    pause = json.loads(value)
    until = pause["until"]
    return Pause(
        prefix,
        to_datetime(pause["since"]),
        None if until is None else to_datetime(until),
        pause["reason"],
        pause["by"],
    )


def pauses_call(keys: KeySpace) -> Call:
    return Call(PAUSES, (keys.pauses,), ())


def read_pauses(keys: KeySpace, answer: list[bytes]) -> list[Pause]:
    """Return the pauses in the order of their prefixes."""
    return sorted(
        read_pause(keys.prefix(start.decode()), value)
        for start, value in zip(answer[::2], answer[1::2], strict=True)
    )


def waiter(owner: str, holder: str) -> str:
    """Return a waiter as it stands in a queue, behind its process's channel and its number."""
    return f"{owner} {_quote(holder)}"


@lru_cache
def _quote(holder: str) -> str:
    return json.dumps(holder)


def _milliseconds(seconds: float | None) -> int | str:
    """Round up to milliseconds; an empty text means without end."""
    return "" if seconds is None else math.ceil(seconds * 1000)


def _end(at: int, ttl: float | None) -> datetime | None:
    return None if ttl is None else to_datetime(at) + timedelta(seconds=ttl)
