"""The numbers that the locks protect. Without a lock, or with an outdated one, increments get lost.

Each semaphore has one number: in a fenced row, or in a row that is written under a guarded commit.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.db import connections, transaction
from django.db.models import F

from tests.app.models import Counter, Customer, Invoice

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_distlock import Lease
    from tests.faults.workload import Work


def create(work: Work) -> None:
    """Create those that are not there yet, at 0."""
    for number in range(1, work.semaphores + 1):
        Customer.objects.using(work.using).get_or_create(pk=number)
        Invoice.objects.using(work.using).get_or_create(pk=number, customer_id=number)
        Counter.objects.using(work.using).get_or_create(pk=number)


def values(work: Work) -> dict[str, int]:
    """Return the number of each semaphore."""
    fenced = Invoice.objects.using(work.using).values_list("pk", "amount")
    guarded = Counter.objects.using(work.using).values_list("pk", "value")
    of_kind = {"fenced": dict(fenced), "guarded": dict(guarded)}
    return {
        f"{number}collectPayment": of_kind[kind_of(work, number)][number]
        for number in range(1, work.semaphores + 1)
        if work.registers
    }


def kind_of(work: Work, number: int) -> str:
    """Return the kind of a semaphore's register, or nothing if there is none."""
    return work.registers[number % len(work.registers)] if work.registers else ""


def increment(work: Work, number: int, lease: Lease, pause: float) -> int:
    """Read the number, pause, and write the next one; return what was written."""
    try:
        if kind_of(work, number) == "fenced":
            return increment_fenced(work.using, number, lease, pause)
        return increment_guarded(work.using, number, pause)
    except Exception:
        connections[work.using].close()  # as at the end of a request, if it is broken
        raise


def increment_fenced(using: str, number: int, lease: Lease, pause: float) -> int:
    """Set the fence first: what is read after that, no earlier holder can change any more."""
    rows = Invoice.objects.using(using).filter(pk=number)
    rows.fenced(lease).update(amount=F("amount"))
    invoice = rows.get()
    time.sleep(pause)
    invoice.amount += 1
    invoice.save(using=using, lease=lease)
    return invoice.amount


def increment_guarded(using: str, number: int, pause: float) -> int:
    """Read before the transaction: that the lease is held at its commit is enough."""
    counter = Counter.objects.using(using).get(pk=number)
    with transaction.atomic(using=using):
        time.sleep(pause)
        counter.value += 1
        counter.save(using=using)
    return counter.value


def increment_and_release(
    using: str, number: int, acquire: Callable[[], Lease | None], pause: float
) -> int | None:
    """Acquire, read, write and release in one transaction; return what was written, if at all."""
    try:
        with transaction.atomic(using=using):
            lease = acquire()
            if lease is None:
                return None
            try:
                counter = Counter.objects.using(using).get(pk=number)
                time.sleep(pause)
                counter.value += 1
                counter.save(using=using)
            finally:
                lease.release()
            time.sleep(pause)
        return counter.value
    except Exception:
        connections[using].close()
        raise
