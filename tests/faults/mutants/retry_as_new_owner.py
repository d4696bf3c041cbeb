"""An attempt whose reply was lost is retried as another owner, which its own grant keeps out."""

from __future__ import annotations

from typing import Any

from django_distlock.leases.request import new_owner
from django_distlock.locks.attempts import Attempts
from tests.faults.mutants import lost_replies


def apply() -> None:
    """Lose replies, and make the mistake."""
    lost_replies.apply()
    attempt = Attempts.attempt

    async def mistaken(self: Attempts, calls: Any) -> Any:
        mistaken_calls: Any = MistakenCalls(calls, self)
        return await attempt(self, mistaken_calls)

    setattr(Attempts, "attempt", mistaken)  # noqa: B010 - a method, to type checkers


class MistakenCalls:
    """The calls of one attempt, which acquires as another owner the second time."""

    def __init__(self, calls: Any, attempts: Attempts) -> None:
        self._calls = calls
        self._attempts = attempts
        self._is_first = True

    async def acquire(self, semaphore: str, owner: str, ttl: float | None, holder: str) -> Any:
        if not self._is_first:
            self._attempts.owner = owner = new_owner()
        self._is_first = False
        return await self._calls.acquire(semaphore, owner, ttl, holder)
