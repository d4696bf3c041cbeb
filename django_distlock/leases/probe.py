"""A probe of a store: acquire one lock and release it, to learn whether locks can be had."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from django_distlock import clocks
from django_distlock.backends.base import BaseLockBackend
from django_distlock.concurrency.executors import detach
from django_distlock.concurrency.store_calls import StoreCalls, aask, ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable, LockError
from django_distlock.records import LeaseClaim
from django_distlock.redaction.credentials import without_credentials
from django_distlock.transactions import refuse_endless_transactions

from .request import describe_holder, new_owner

SEMAPHORE: Final = "distlock:health"
"""The same one for all probes, so that a table gets one row by them, however many there are."""
LONGEST_TTL: Final = 5.0
"""Seconds after which the lock of a probe that was killed is free."""
SHORTEST_LIMIT: Final = 2.0
"""Seconds that connecting may take, whatever `store_timeout` is: libpq waits no shorter."""
SPARE: Final = 1.0
"""Seconds that async code waits for a probe beyond the store's time limit."""

UP: Final = "granted a lock, and released it"
CONTENDED: Final = "refused a lock that another probe holds"
FORGOT: Final = "granted a lock, and had forgotten it a moment later"


class HealthStatus(StrEnum):
    """The result of a check. Only `down` means that the store grants no locks."""

    UP = "up"
    """The store granted a lock and released it."""
    CONTENDED = "contended"
    """Another process checked the store at the same moment. The store answers."""
    PAUSED = "paused"
    """An operator paused the locks. The store answers."""
    DOWN = "down"
    """The store can't be reached, refuses to work, or forgot a lock that it had granted."""


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """The health of a store. It is true unless the store is down."""

    alias: str
    """The store, an alias in `DISTLOCK`."""
    status: HealthStatus
    """The result of the check."""
    latency: float
    """How long the check took, in seconds."""
    detail: str
    """What happened, for operators. It may name hosts, but shows no credentials."""

    @property
    def ok(self) -> bool:
        """Whether the store works: `status` isn't `down`."""
        return self.status is not HealthStatus.DOWN

    def __bool__(self) -> bool:
        return self.ok


def probe(alias: str) -> StoreHealth:
    """Probe the store in this thread; InvalidLockBackend if it is configured wrongly."""
    began = clocks.monotonic()
    try:
        refuse_endless_transactions()
        store = lock_backends[alias]
        status, detail = ask(store, _Probe(store).run)
    except LockError as error:
        status, detail = HealthStatus.DOWN, without_credentials(error)
    return StoreHealth(alias, status, clocks.monotonic() - began, detail)


async def aprobe(alias: str) -> StoreHealth:
    """See probe(). The answer comes in time even if a thread doesn't."""
    began = clocks.monotonic()
    try:
        store = lock_backends[alias]
        limit = None
        if store.store_timeout is not None:
            limit = max(store.store_timeout, SHORTEST_LIMIT) + SPARE
        running = detach(aask(alias, _Probe(store).run))
        done, _ = await asyncio.wait([running], timeout=limit)
        if not done:
            # It ends by itself; its outcome no longer matters.
            running.add_done_callback(lambda task: task.cancelled() or task.exception())
            raise LockBackendUnavailable(f"DISTLOCK[{alias!r}]: no answer in {limit:g} seconds")
        status, detail = running.result()
    except LockError as error:
        status, detail = HealthStatus.DOWN, without_credentials(error)
    return StoreHealth(alias, status, clocks.monotonic() - began, detail)


class _Probe:
    """One probe of a store, as a policy for sync and async code."""

    def __init__(self, store: BaseLockBackend) -> None:
        ttl = LONGEST_TTL if store.ttl is None else min(store.ttl, LONGEST_TTL)
        holder = describe_holder("health check")
        self._claim = LeaseClaim(SEMAPHORE, new_owner(), ttl, holder=holder)

    async def run(self, calls: StoreCalls) -> tuple[HealthStatus, str]:
        """Acquire and release; return what that says about the store."""
        claim = self._claim
        granted = await calls.acquire(claim.semaphore, claim.owner, claim.ttl, claim.holder)
        if granted:
            if await calls.release(claim):
                return HealthStatus.UP, UP
            return HealthStatus.DOWN, FORGOT
        if granted.reason:
            return HealthStatus.PAUSED, granted.reason
        return HealthStatus.CONTENDED, CONTENDED
