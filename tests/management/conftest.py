"""Locks for the commands to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from django_distlock import lock_backends
from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim
from tests.support.commands import HOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def grant() -> Iterator[Callable[..., int]]:
    """Return a function that acquires a lock and returns its token; all are released at the end."""
    claims = []

    def acquire(alias: str, semaphore: str, holder: str = HOLDER, ttl: float = 1000) -> int:
        claim = LeaseClaim(semaphore, new_owner(), ttl)
        claims.append((alias, claim))
        granted = lock_backends[alias].acquire(semaphore, claim.owner, ttl, holder)
        assert granted
        assert granted.token is not None
        return granted.token

    yield acquire
    for alias, claim in claims:
        lock_backends[alias].release(claim)
