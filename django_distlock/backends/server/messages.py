"""The requests that the backend sends to a lock server, and the meaning of the answers."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from django_distlock.backends.snapshots import lock_info
from django_distlock.fields import to_datetime
from django_distlock.records import (
    LOST,
    REFUSED,
    Claim,
    Grant,
    LockInfo,
    Refusal,
    Renewal,
    RenewalOutcome,
)
from django_distlock.server.locks import LockSnapshot
from django_distlock.server.protocol import Message
from django_distlock.server.request_fields import LONGEST_HOLDER

LEASE_OVERHEAD: Final = 100
"""Bytes of a lease in a request, about, beside its texts."""


def acquire_request(
    semaphore: str, owner: str, ttl: float | None, holder: str
) -> tuple[Message, Message]:
    """Return the request, and the one that undoes it."""
    names = {"semaphore": semaphore, "owner": owner}
    acquire = {"do": "acquire", **names, "ttl": ttl, "holder": _shorten(holder)}
    return acquire, {"do": "release", **names}


def read_grant(answer: Message) -> Grant | Refusal:
    token = answer["token"]
    if token is None:
        return REFUSED
    return Grant(token, to_datetime(answer["acquired_at"]), to_datetime(answer["expires_at"]))


def join_request(semaphore: str, owner: str, holder: str) -> Message:
    return {"do": "join", "semaphore": semaphore, "owner": owner, "holder": _shorten(holder)}


def renew_request(leases: list[Claim]) -> Message:
    return {
        "do": "renew",
        "leases": [
            [lease.semaphore, lease.owner, lease.ttl, lease.token, _shorten(lease.holder)]
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
    return [
        lock_info(LockSnapshot(semaphore, "", token, holder, acquired_at, left), answer["now"])
        for semaphore, token, holder, acquired_at, left in answer["locks"]
    ]


@lru_cache
def _shorten(holder: str) -> str:
    """Return as much of the text as the server takes."""
    return holder if len(holder) <= LONGEST_HOLDER else f"{holder[: LONGEST_HOLDER - 1]}…"
