"""However late an earlier holder writes, the row stays as the last holder wrote it."""

import os
import random
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, Event
from typing import Any

import pytest
from django.db import connections, transaction

from django_distlock import Lease, LockLost
from tests.app.models import Customer, DunnedInvoice, Invoice, Payment
from tests.support.concurrency import until
from tests.support.databases import (
    committed,
    on_each_database,
    on_each_server,
    paused_before_writing,
)
from tests.support.fenced_rows import create, lock_of, stored, taken_over
from tests.support.holders import take_away
from tests.support.leases import internals
from tests.support.processes import Workers

pytestmark = [committed, pytest.mark.once]
Write = Callable[[Any, Lease], object]


def rows_of(row: Any, lease: Lease) -> Any:
    return type(row).objects.using(row._state.db).filter(pk=row.pk).fenced(lease)


def by_a_join(row: Any, lease: Lease) -> object:
    return rows_of(row, lease).filter(customer__name="Ada").update(amount=14)


WRITES: dict[str, Write] = {
    "save": lambda row, lease: row.save(lease=lease),
    "save of a field": lambda row, lease: row.save(lease=lease, update_fields=["amount"]),
    "delete": lambda row, lease: row.delete(lease=lease),
    "update": lambda row, lease: rows_of(row, lease).update(amount=14),
    "update by a join": by_a_join,
    "bulk_update": lambda row, lease: rows_of(row, lease).bulk_update([row], ["amount"]),
    "delete of a queryset": lambda row, lease: rows_of(row, lease).delete(),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
both_models = pytest.mark.parametrize("model", [Invoice, DunnedInvoice])


@on_each_database
@both_models
@every_write
def test_holder_paused_before_its_write_is_refused_by_the_row(
    alias: str, model: type[Any], write: Write
) -> None:
    """Its own check passed, because it doesn't know that its lock was taken; the row refuses it."""
    row = create(alias, model)
    Payment.objects.using(alias).create(invoice_id=row.pk)
    late = stored(row)
    late.amount = 14
    with lock_of(row) as lease:

        def take_over() -> None:
            take_away(lease)
            with lock_of(row) as later:
                row.amount = 13
                row.save(lease=later)

        lease.check()
        with paused_before_writing(alias, take_over), pytest.raises(LockLost) as lost:
            write(late, lease)
        assert lost.value.lease is lease
        assert internals(lease).lost
    assert late.fence == 0
    assert (stored(row).amount, stored(row).fence) == (13, row.fence)
    assert row.fence > (lease.token or 0)
    assert Payment.objects.using(alias).exists()


def somebody_waits(alias: str) -> bool:
    """Return whether a session of the database waits for a row."""
    with connections[alias].cursor() as cursor:
        if connections[alias].vendor == "postgresql":
            cursor.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            return bool(cursor.fetchone())
        # SHOW is up to date; MariaDB's tables of transactions are cached between frequent queries.
        cursor.execute("SHOW ENGINE INNODB STATUS")
        _, _, status = cursor.fetchone()
        return "LOCK WAIT" in status.partition("\nTRANSACTIONS\n")[2]


@on_each_server
@both_models
@every_write
def test_write_that_waits_for_a_later_holders_commit_is_refused(
    alias: str, model: type[Any], write: Write
) -> None:
    """The fence is compared when the wait is over."""
    row = create(alias, model)
    late = stored(row)
    late.amount = 14
    has_written = Event()

    def write_later(lease: Lease) -> None:
        try:
            take_away(lease)
            with lock_of(row) as later, transaction.atomic(using=alias):
                row.amount = 13
                row.save(lease=later)
                has_written.set()
                until(lambda: somebody_waits(alias))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread, lock_of(row) as lease:
        later = thread.submit(write_later, lease)
        assert has_written.wait(60)
        with pytest.raises(LockLost):
            write(late, lease)
        later.result(60)
    assert (stored(row).amount, stored(row).fence) == (13, row.fence)


@on_each_database
def test_process_stopped_before_its_write_is_refused_by_the_row(alias: str) -> None:
    """It is stopped beyond its ttl, so a successor gets the lock by itself, and writes."""
    invoice = create(alias)
    with Workers(1, "write_late", alias, "0.3") as workers:
        _, status = os.waitpid(workers.processes[0].pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        with lock_of(invoice, timeout=30) as later:
            invoice.amount = 13
            invoice.save(lease=later)
            workers.processes[0].send_signal(signal.SIGCONT)
            (refusal,) = workers.results()
    assert f"app.Invoice with pk {invoice.pk} was not written" in refusal
    assert f"with token {later.token}" in refusal
    assert (stored(invoice).amount, stored(invoice).fence) == (13, later.token)


@on_each_database
def test_of_racing_writers_the_last_holder_has_the_last_word(alias: str) -> None:
    """In any order: here, two threads with the tokens of ten holders."""
    customer = Customer.objects.using(alias).create(name="Ada")
    invoice = Invoice.objects.using(alias).create(customer=customer)
    leases = [taken_over(invoice) for _ in range(10)]
    shuffled = random.sample(leases, len(leases))
    start = Barrier(2)

    def save_all(some: list[Lease]) -> None:
        try:
            start.wait(60)
            for lease in some:
                with suppress(LockLost):
                    row = Invoice(pk=invoice.pk, customer=customer, amount=leases.index(lease))
                    row._state.adding = False
                    row.save(using=alias, lease=lease)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(save_all, half) for half in (shuffled[:5], shuffled[5:])]:
            done.result(60)
    assert (stored(invoice).amount, stored(invoice).fence) == (9, leases[-1].token)
    for lease in leases:
        lease.release()
