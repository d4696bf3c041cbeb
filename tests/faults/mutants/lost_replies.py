"""No mistake: of some acquisitions the reply is lost, so they are made once more."""

from __future__ import annotations

from random import Random
from typing import Any

from django_distlock.concurrency.store_calls import SyncCalls
from django_distlock.exceptions import LockBackendUnavailable

SHARE = 0.1


def apply() -> None:
    """Lose replies from now on."""
    acquire = SyncCalls.acquire
    random = Random(1)

    async def lossy(self: SyncCalls, *arguments: Any) -> Any:
        outcome = await acquire(self, *arguments)
        if outcome and random.random() < SHARE:
            raise LockBackendUnavailable("the reply was lost", reply_lost=True)
        return outcome

    setattr(SyncCalls, "acquire", lossy)  # noqa: B010 - a method, to type checkers
