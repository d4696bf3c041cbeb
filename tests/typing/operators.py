"""What operators ask of stores; signals; health checks."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, assert_type

from django.core.checks import CheckMessage
from django.dispatch import receiver

from django_distlock import Lease, health, lock_backends
from django_distlock.backends.base import BaseLockBackend
from django_distlock.health import HealthStatus, StoreHealth
from django_distlock.records import (
    LockInfo,
    LockPage,
    LockQuery,
    LockState,
    Pause,
    ServerStatus,
    WaiterInfo,
)
from django_distlock.signals import (
    lock_acquired,
    lock_contended,
    lock_force_released,
    lock_lost,
    lock_released,
    lock_unavailable,
)


def look(store: BaseLockBackend) -> None:
    """List locks, and look at one."""
    assert_type(lock_backends["default"], BaseLockBackend)
    assert_type(store.held(prefix="1234", limit=10), Iterator[LockInfo])
    assert_type(store.find("1234collectPayment"), LockInfo | None)
    assert_type(store.waiters("1234collectPayment"), list[WaiterInfo] | None)
    page = store.page(LockQuery(search="collect", state=LockState.HELD, page=2, limit=50))
    assert_type(page, LockPage)
    for lock in page.locks:
        assert_type((lock.label, lock.holder, lock.token), tuple[str, str, int | None])
    assert_type(store.ttl, float | None)
    assert_type(store.alias, str)


def intervene(store: BaseLockBackend) -> None:
    """Release locks, pause, and clean up."""
    for lock in store.held("1234"):
        if lock.token is not None:
            assert_type(store.force_release(lock.semaphore, lock.token, by="root"), bool)
    assert_type(store.pause("1234", 600, reason="deploy", by="root"), Pause)
    assert_type(store.pauses(), list[Pause])
    assert_type(store.resume("1234"), bool)
    assert_type(store.clear_stale(dry_run=True), Iterator[LockInfo])
    assert_type(store.purge_released(timedelta(days=7), "1234"), Iterator[LockInfo])


def watch() -> None:
    """All stores; the lock server has a status."""
    assert_type(list(lock_backends), list[str])
    assert_type("default" in lock_backends, bool)
    stores: Sequence[BaseLockBackend] = lock_backends.all()
    for store in stores:
        assert_type(store.check(), list[CheckMessage])
        store.close()
    status = lock_backends["default"].status()
    assert_type(status, ServerStatus)
    assert_type(status["locks"], int)
    assert_type(status["limits"]["max_ttl"], float)


async def probe() -> None:
    """Ask whether locks can be had."""
    assert_type(health.check(), StoreHealth)
    found = await health.acheck("jobs")
    assert_type(found.status, HealthStatus)
    assert_type((found.alias, found.ok, found.latency), tuple[str, bool, float])
    assert_type(found.detail, str)


@receiver(lock_lost)
def report_loss(*, lease: Lease, reason: str, held_for: float, **kwargs: Any) -> None:
    """Receive a signal."""
    assert_type(lease.waited, float)


def receive_all(tell: Callable[..., None]) -> None:
    """Receive signals, of all stores or of one."""
    signals = lock_acquired, lock_contended, lock_unavailable, lock_released, lock_force_released
    for signal in signals:
        signal.connect(tell, sender=Lease, dispatch_uid="tell")
        signal.disconnect(tell, sender=Lease)
    lock_acquired.record(tell)
    lock_acquired.stop_recording(tell)
