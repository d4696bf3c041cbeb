"""The scripts' arguments for each action, and the meaning of their answers."""

import json
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any

from django_distlock.fields import to_datetime
from django_distlock.records import (
    LOST,
    REFUSED,
    Claim,
    Grant,
    Owner,
    Refusal,
    Renewal,
    RenewalOutcome,
)

from .places import Keys
from .scripts import ACQUIRE, FORCE_RELEASE, RELEASE, RENEW, Call


def acquire_call(keys: Keys, owner: str, ttl: float | None, holder: str) -> tuple[Call, Call]:
    """Return the call, and the one that undoes it."""
    acquire = Call(ACQUIRE, keys, (owner, _milliseconds(ttl), _quote(holder)))
    return acquire, Call(RELEASE, keys, (owner, 0))


def read_grant(answer: Any, ttl: float | None) -> Grant | Refusal:
    if answer is None:
        return REFUSED
    token, at = map(int, answer)
    return Grant(token, to_datetime(at), _end(at, ttl))


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
