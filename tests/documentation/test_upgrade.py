"""docs/how-to/upgrade.md: versions of the package that run side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from django.db import connections

from django_distlock import LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.backends.database import connections as own
from django_distlock.backends.server import connections as client
from django_distlock.models import Lock, LockEvent, LockPause, LockWaiter, WaitingProcess
from django_distlock.server.protocol import VERSION
from tests.support.concurrency import until
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire, held_in
from tests.support.lock_servers import locks_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

pytestmark = [pytest.mark.once, committed]

MODELS = [Lock, LockEvent, LockPause, LockWaiter, WaitingProcess]


@pytest.fixture
def newer_tables(alias: str) -> Iterator[None]:
    """Give each table a column that this version doesn't know."""
    own.close_own_connections()
    with connections[alias].cursor() as cursor:
        for model in MODELS:
            cursor.execute(f"ALTER TABLE {model._meta.db_table} ADD COLUMN later bigint NULL")
        yield
        own.close_own_connections()
        for model in MODELS:
            cursor.execute(f"ALTER TABLE {model._meta.db_table} DROP COLUMN later")


@on_each_database
@pytest.mark.usefixtures("newer_tables")
def test_older_code_works_on_newer_tables(alias: str) -> None:
    """It acquires, waits, renews, lists, pauses and releases."""
    lease = acquire(alias)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(wait, alias)
        if alias != "default":  # where the queue is in a file
            until(LockWaiter.objects.using(alias).exists)
        lease.renew()
        assert held_in(alias) == [lease.semaphore]
        assert lease.release()
        assert waiting.result(60)
    store = lock_backends[alias]
    store.pause("1234")
    assert acquire_lock("1234collectPayment", backend=alias) is None
    store.resume("1234")
    assert [*store.clear_stale()] == []


def wait(alias: str) -> bool:
    """Wait for the lock, and release it."""
    try:
        return acquire(alias, timeout=60).release()
    finally:
        connections.close_all()


def test_client_of_another_protocol_gets_no_lock(
    spare_lock_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than one that another version doesn't know of."""
    monkeypatch.setattr(client, "VERSION", VERSION + 1)
    with locks_of(spare_lock_server):
        with pytest.raises(LockBackendUnavailable, match=f"doesn't support version {VERSION + 1}"):
            acquire("lock_server")
