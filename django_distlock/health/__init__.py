"""Health of the stores, for readiness probes and monitoring."""

from django_distlock.arguments import validate_alias
from django_distlock.leases.owned_lease import refuse_event_loop
from django_distlock.leases.probe import HealthStatus, StoreHealth, aprobe, probe

__all__ = ["HealthStatus", "StoreHealth", "acheck", "check"]


def check(alias: str = "default") -> StoreHealth:
    """Acquire and release a lock in the store, and return how that went.

    The result is true unless the store is down; that raises nothing. It ends within the store's
    `store_timeout`, on SQLite within the `timeout` of the database. Any number of processes may
    check a store at once. All share the semaphore `distlock:health`.

    `InvalidLockBackend`: `DISTLOCK` has no such store, or it is configured wrongly.
    """
    refuse_event_loop()
    return probe(validate_alias(alias))


async def acheck(alias: str = "default") -> StoreHealth:
    """See `check()`."""
    return await aprobe(validate_alias(alias))
