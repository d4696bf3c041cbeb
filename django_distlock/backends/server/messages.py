"""The requests that the backend sends to a lock server, and the meaning of the answers."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from django_distlock.backends.table_records import (
    limit_of,
    lock_info,
    page_of_table,
    pause_of,
    refusal_of,
    waiter_info,
)
from django_distlock.fields import to_datetime
from django_distlock.records import (
    LOST,
    Claim,
    Grant,
    LockInfo,
    LockPage,
    LockQuery,
    Pause,
    Refusal,
    Renewal,
    RenewalOutcome,
    WaiterInfo,
)
from django_distlock.semaphores.validation import validate_prefix
from django_distlock.server.locks import LockDescription
from django_distlock.server.pauses import PauseSnapshot
from django_distlock.server.protocol import Message
from django_distlock.server.request_fields import LONGEST_HOLDER

LEASE_OVERHEAD: Final = 100
"""Bytes of a lease in a request, about, beside its texts."""


def acquire_request(
    semaphore: str, owner: str, ttl: float | None, holder: str, attempt: int
) -> tuple[Message, Message]:
    """Return the request, and the one that undoes it unless a later attempt was granted."""
    names = {"semaphore": semaphore, "owner": owner, "attempt": attempt}
    acquire = {"do": "acquire", **names, "ttl": ttl, "holder": _shorten(holder)}
    return acquire, {"do": "release", **names}


def read_grant(answer: Message) -> Grant | Refusal:
    token = answer["token"]
    if token is None:
        return _read_refusal(answer)
    return Grant(token, to_datetime(answer["acquired_at"]), to_datetime(answer["expires_at"]))


def _read_refusal(answer: Message) -> Refusal:
    lock, pause = answer.get("lock"), answer.get("pause")
    if lock is not None:
        return refusal_of(_described(lock), answer["now"])
    return refusal_of(None if pause is None else _paused(pause), answer["now"])


def join_request(semaphore: str, owner: str, holder: str) -> Message:
    return {"do": "join", "semaphore": semaphore, "owner": owner, "holder": _shorten(holder)}


def renew_request(leases: list[Claim]) -> Message:
    return {
        "do": "renew",
        "leases": [
            [
                lease.semaphore,
                lease.owner,
                lease.ttl,
                # With its token, a server that lost its table would bring back one that is over.
                lease.token if lease.remaining else None,
                _shorten(lease.holder),
            ]
            for lease in leases
        ],
    }


def split_into_frames(leases: Sequence[Claim], size: int) -> list[list[Claim]]:
    """Return the leases in batches, whose requests have about this size in bytes."""
    batches: list[list[Claim]] = [[]]
    used = 0
    for lease in leases:
        # JSON may take 12 bytes for one character, but few characters are of that kind.
        length = LEASE_OVERHEAD + len(ascii(lease.semaphore)) + len(ascii(_shorten(lease.holder)))
        if used + length > size and batches[-1]:
            batches.append([])
            used = 0
        batches[-1].append(lease)
        used += length
    return batches if leases else []


def read_renewal(end: int | None) -> Renewal:
    """Return the result for one lease, from the answer's `expires_at`."""
    return LOST if end is None else Renewal(RenewalOutcome.RENEWED, to_datetime(end))


def release_request(lease: Claim, keep: float) -> Message:
    return {
        "do": "release",
        "semaphore": lease.semaphore,
        "owner": lease.owner,
        "keep": keep,
        "token": lease.token,
        "left": lease.remaining,
    }


def read_locks(answer: Message) -> list[LockInfo]:
    """Return the locks on a page of a listing."""
    return [lock_info(_described(lock), answer["now"]) for lock in answer["locks"]]


def read_lock(answer: Message) -> LockInfo | None:
    lock = answer["lock"]
    return None if lock is None else lock_info(_described(lock), answer["now"])


def _described(lock: list[Any]) -> LockDescription:
    semaphore, token, holder, acquired_at, left, renewed_at, kept, waiting = lock
    return LockDescription(
        semaphore, token, holder, acquired_at, left, renewed_at or 0, kept, waiting
    )


def page_request(query: LockQuery, window: int) -> Message:
    return {
        "do": "page",
        "prefix": validate_prefix(query.prefix),
        "search": query.search,
        "window": window,
        "page": query.page,
        "limit": limit_of(query),
        "cursor": None,
    }


def read_page(answer: Message, query: LockQuery) -> LockPage:
    found, is_capped = answer["found"], answer["is_capped"]
    return page_of_table(read_locks(answer), found, query, is_capped=is_capped)


def read_waiters(answer: Message) -> list[WaiterInfo]:
    return [waiter_info(holder, since) for holder, since in answer["waiters"]]


def read_pause(pause: list[Any], now: int) -> Pause:
    return pause_of(_paused(pause), now)


def _paused(pause: list[Any]) -> PauseSnapshot:
    prefix, since, left, reason, by = pause
    return PauseSnapshot(prefix, since, math.inf if left is None else left, reason, by)


@lru_cache
def _shorten(holder: str) -> str:
    """Return as much of the text as the server takes."""
    return holder if len(holder) <= LONGEST_HOLDER else f"{holder[: LONGEST_HOLDER - 1]}…"
