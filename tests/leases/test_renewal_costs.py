"""What the renewal of many leases costs."""

import gc
import math
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest

from django_distlock import clocks, lock_backends
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.backends.database.statements import Statements
from django_distlock.leases.owned_lease import OwnedLease
from django_distlock.leases.registry import current_registry
from django_distlock.leases.request import Request, describe_holder, new_owner
from django_distlock.models import Lock
from django_distlock.records import Grant
from tests.support.databases import (
    committed,
    on_each_server,
    pool_of,
)
from tests.support.holders import hold
from tests.support.leases import internals
from tests.support.moved_clock import MovedClock
from tests.support.renewals import renewals_of
from tests.support.scripted_store import ScriptedBackend

# What it costs


@pytest.mark.once
def test_lease_costs_little_memory(scripted: ScriptedBackend) -> None:
    """Less than 2 KB each (design, 7)."""
    renewals = renewals_of(granted("default", 0))
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        leases = [granted("default", number) for number in range(1, 1_001)]
        for lease in leases:
            renewals.add(lease)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(leases) < 2048


@committed
@pytest.mark.once
@on_each_server
def test_ten_thousand_leases_cost_few_round_trips(alias: str, moved_clock: MovedClock) -> None:
    """At most 20 a period (design, 7)."""
    leases = [granted(alias, number) for number in range(10_000)]
    renewals = renewals_of(*leases)
    Lock.objects.using(alias).bulk_create(
        Lock(semaphore=each.semaphore, owner=internals(each).owner, expires_at=each.expires_at)
        for each in leases
    )
    moved_clock.stop()
    moved_clock.advance(3000)
    with counted() as sent:
        renewals.renew_due()
    assert len(sent) <= 20
    assert renewals.next_due() - clocks.monotonic() > 600
    assert min(lease.remaining for lease in leases) > 3000


def granted(alias: str, number: int) -> OwnedLease:
    """Return a lease of an hour that is in no store."""
    request = Request(
        backend=alias,
        semaphore=f"{number}collectPayment",
        owner=new_owner(),
        began=clocks.monotonic(),
        ttl=3600,
        holder=describe_holder(),
        renewed=False,
        template="",
        connection=None,
        min_hold=0,
        max_hold=math.inf,
    )
    now = datetime.now(UTC)
    grant = Grant(number, now, now + timedelta(hours=1))
    lease = OwnedLease(request, grant, clocks.monotonic(), current_registry())
    current_registry().add(lease)
    current_registry().retain(lease)
    return lease


@contextmanager
def counted() -> Iterator[list[str]]:
    """Return the statements that are sent for locks in the block."""
    sent: list[str] = []

    def spy(name: str) -> Any:
        real = getattr(Statements, name)

        def send(statements: Statements, sql: str, parameters: Any) -> Any:
            sent.append(sql)
            return real(statements, sql, parameters)

        return mock.patch.object(Statements, name, send)

    with spy("execute"), spy("fetch"):
        yield sent


@committed
@pytest.mark.once
@pytest.mark.needs("postgresql")
def test_renewal_of_many_is_planned_for_the_table_as_it_is() -> None:
    """PostgreSQL keeps a prepared plan as the table grows: it would join by nested loops."""
    close_own_connections()
    leases = hold(2, "postgresql")
    assert len(lock_backends["postgresql"].renew(leases)) == 2
    assert not renewal_is_prepared()
    leases[0].renew()  # compares one lease with each row, at worst
    assert renewal_is_prepared()


def renewal_is_prepared() -> bool:
    """Return whether PostgreSQL keeps a plan for it in the first of the locks' own sessions."""
    session = pool_of("postgresql").all[0].statements(clocks.monotonic() + 60)
    prepared = session.fetch("SELECT statement FROM pg_prepared_statements", {})
    return any("jsonb_to_recordset" in sql for (sql,) in prepared)
