"""An attempt whose reply was lost is retried as another owner, which its own grant keeps out."""

from __future__ import annotations

from typing import Any

from django_distlock.exceptions import LockBackendUnavailable
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
    """The calls of a policy, of which the second acquisition is for another owner."""

    def __init__(self, calls: Any, attempts: Attempts) -> None:
        self._calls = calls
        self._attempts = attempts

    async def acquire(self, semaphore: str, owner: str, ttl: float | None, holder: str) -> Any:
        try:
            return await self._calls.acquire(semaphore, owner, ttl, holder)
        except LockBackendUnavailable as error:
            if not error.reply_lost:
                raise
            self._attempts.owner = new_owner()
            return await self._calls.acquire(semaphore, self._attempts.owner, ttl, holder)
