"""Locks in databases with the engines of django-prometheus, which measure connections."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from django.db import connections, transaction

from django_distlock import LockLost, acquire_lock, distributed_lock, lock_backends
from django_distlock.models import Lock
from tests.app.models import Counter
from tests.support.concurrency import elsewhere, until
from tests.support.databases import (
    committed,
    noting_connections,
    on_each_database,
    on_each_server,
    using_engine,
)
from tests.support.documentation import example
from tests.support.holders import acquire, take_away

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

pytest.importorskip("django_prometheus")
prometheus_client = pytest.importorskip("prometheus_client")
pytestmark = [committed, pytest.mark.once]


@pytest.fixture
def measured(alias: str) -> Iterator[str]:
    """Connect to the database through an engine of django-prometheus; return its alias."""
    engine = connections.settings[alias]["ENGINE"]
    with using_engine(alias, engine.replace("django.", "django_prometheus.", 1)):
        yield alias


@on_each_database
def test_lock_is_exclusive_and_waited_for(measured: str) -> None:
    """On PostgreSQL a notification wakes the waiter, on the others the release in its process."""
    lease = acquire(measured)
    assert elsewhere(lambda: acquire_lock("1234collectPayment", backend=measured)) is None

    def wait() -> bool:
        try:
            return acquire(measured, timeout=60).release()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        waiter = thread.submit(wait)
        if measured == "postgresql":  # the only one of these that lists its waiters
            until(lambda: [lock.waiting for lock in lock_backends[measured].held()] == [1])
        assert lease.release()
        assert waiter.result(60)


@on_each_server
def test_locks_have_connections_of_their_own(measured: str) -> None:
    """The engine's, and apart from the caller's: a grant survives its rollback."""
    connections[measured].ensure_connection()
    with noting_connections(measured) as made, transaction.atomic(using=measured):
        lease = acquire(measured)
        transaction.set_rollback(True, using=measured)
    assert lease.release()
    assert made
    assert {type(each) for each in made} == {type(connections[measured])}
    assert connections[measured] not in made


@on_each_database
def test_metrics_of_queries_leave_out_those_of_locks(measured: str) -> None:
    """The page says so."""
    connections[measured].ensure_connection()
    acquire(measured, "opens the others").release()
    before = queries(measured)
    assert acquire(measured).release()
    assert queries(measured) == before
    assert not Lock.objects.using(measured).held().exists()
    assert queries(measured) == before + 1


def queries(alias: str) -> float:
    """Return how many queries were counted in the database."""
    labels = {"alias": alias, "vendor": connections[alias].vendor}
    return prometheus_client.REGISTRY.get_sample_value("django_db_execute_total", labels) or 0


@on_each_server
def test_commit_under_a_lost_lock_is_rolled_back(measured: str) -> None:
    """The guard's query runs on the caller's connection."""
    with (
        pytest.raises(LockLost, match="before the commit"),
        distributed_lock("1234collectPayment", backend=measured) as lease,
        transaction.atomic(using=measured),
    ):
        Counter.objects.using(measured).create()
        take_away(lease)
    assert not Counter.objects.using(measured).exists()


@on_each_database
def test_checks_find_the_table_as_with_djangos_engine(measured: str) -> None:
    """They ask for the vendor, not for the engine's path."""
    store: Any = lock_backends[measured]
    assert store.check_database() == []


def test_documented_settings_name_an_engine_and_a_store(settings: Any) -> None:
    """Whoever copies them gets a store in that database."""
    documented = example("integrations/django-prometheus.md", "django-prometheus")
    settings.DISTLOCK = documented.DISTLOCK
    assert lock_backends["default"].using in documented.DATABASES
    engine = documented.DATABASES["default"]["ENGINE"]
    with using_engine("default", engine.replace("postgresql", "sqlite3")):
        assert acquire("default").release()
