"""Redis: leases end by the wall clock of the client that looks at them.

The clocks of clients that reach it by a proxy are a day ahead.
"""

from __future__ import annotations

import time
from typing import Any

from django_distlock.backends.redis import RedisBackend
from tests.faults.environment import PROXIED


def apply() -> None:
    """Make the mistake in attempts of sync code."""
    acquire = RedisBackend.acquire

    def mistaken(self: RedisBackend, semaphore: str, *arguments: Any) -> Any:
        found, now = self.find(semaphore), time.time() + (self.alias == PROXIED) * 86400
        if found and found.expires_at and found.expires_at.timestamp() < now:
            self.force_release(semaphore, found.token or 0)
        return acquire(self, semaphore, *arguments)

    setattr(RedisBackend, "acquire", mistaken)  # noqa: B010 - a method, to type checkers
