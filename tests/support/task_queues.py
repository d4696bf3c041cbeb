"""What tasks of task queues do with locks, whichever queue it is."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from threading import Event, Lock
from typing import TYPE_CHECKING

import pytest

from django_distlock import acquire_lock, lock_backends
from django_distlock.signals import lock_contended
from tests.support.leaving_views import about_leases, names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEFT = "was not released by a request or task"


class Charges:
    """Stands for the module `payments` that documented tasks use.

    The first call lasts until another task has been refused.
    """

    def __init__(self) -> None:
        self.customers: list[int] = []
        self.labels: list[str] = []
        self.refused = Event()
        self._alone = Lock()

    async def acollect_payment(self, customer_id: int) -> None:
        """See collect_payment()."""
        await asyncio.to_thread(self.collect_payment, customer_id)

    def collect_payment(self, customer_id: int) -> None:
        """Charge the customer, if nobody else does."""
        assert self._alone.acquire(blocking=False), "two at once"
        self.customers.append(customer_id)
        self.labels.append(label_of(f"{customer_id}collectPayment"))
        assert self.refused.wait(30)
        self._alone.release()

    def refuse(self, **fields: object) -> None:
        """Record that a task was refused."""
        self.refused.set()


@contextmanager
def on_refusal(call: Callable[..., object]) -> Iterator[None]:
    """Call this whenever a lock is refused."""
    lock_contended.record(call)
    try:
        yield
    finally:
        lock_contended.stop_recording(call)


def label_of(semaphore: str, alias: str = "default") -> str:
    """Return the label of a lock that is held."""
    [held] = lock_backends[alias].held(semaphore)
    return held.label


def leave(semaphore: str) -> str:
    """Acquire a lock, leave it behind, and return its label."""
    assert acquire_lock(semaphore)
    return label_of(semaphore)


@contextmanager
def leaving_behind(number: int = 1, held: list[str] | None = None) -> Iterator[None]:
    """Expect that so many locks are left behind, released, and warned of; others stay held."""
    with pytest.warns(ResourceWarning, match=LEFT) as caught:
        yield
    assert len(about_leases(caught)) == number
    assert names("default") == (held or [])
