"""Pages of the list of locks: what they cost among many rows."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_distlock import lock_backends
from django_distlock.backends.database.backend import DatabaseBackend
from django_distlock.models import KEPT, Lock
from django_distlock.records import LockQuery, LockState, SearchScope
from tests.support.databases import committed, on_each_database, operating_connection
from tests.support.holders import acquire
from tests.support.postgresql_waiters import ALIAS, Line, granted

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [committed, pytest.mark.once]

MANY = {"default": 6_000, "postgresql": 20_000, "mariadb": 6_000}
"""So many that reading them all is never the cheapest plan."""
QUERIES = {
    "all": LockQuery(limit=20),
    "held": LockQuery(state=LockState.HELD, limit=20),
    "stale": LockQuery(state=LockState.STALE, limit=20, page=3),
    "released": LockQuery(state=LockState.RELEASED, limit=20),
    "deep": LockQuery(page=9, limit=20),
    "search": LockQuery(search="0001"),
    "prefix": LockQuery(prefix="lock-0"),
}
NO_STATISTICS = "DELETE FROM pg_statistic WHERE starelid = 'distlock_lock'::regclass"
WHOLE_TABLE = {
    "postgresql": "Seq Scan on distlock_lock ",
    "mysql": " distlock_lock ALL ",
    "sqlite": "SCAN distlock_lock$",
}
IN_ORDER = {
    "postgresql": "^(?!)",
    "mysql": " distlock_lock index None PRIMARY ",
    "sqlite": "SCAN distlock_lock USING .*sqlite_autoindex",
}
"""All rows, too, unless the query has a limit that is soon reached, as for released locks."""
needs_postgresql = pytest.mark.needs("postgresql")
EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN"}


def store(alias: str) -> DatabaseBackend:
    found = lock_backends[alias]
    assert isinstance(found, DatabaseBackend)
    return found


def write(alias: str, number: int, held_each: int) -> None:
    """Write so many rows, of which one in `held_each` is held, one is stale, and the rest free."""
    now = datetime.now(UTC)
    Lock.objects.using(alias).bulk_create(
        (
            Lock(
                semaphore=f"lock-{each:06}",
                token=each,
                owner="x" * 30 if each % held_each < 2 else "",
                expires_at=now + timedelta(hours=1 if each % held_each == 0 else -1),
            )
            for each in range(number)
        ),
        batch_size=5_000,
    )


def plans(alias: str, query: LockQuery) -> Iterator[str]:
    """Return how the database finds each row of the locks' table for the page."""
    connection = operating_connection(alias)
    with CaptureQueriesContext(connection) as queries:
        store(alias).page(query)
    assert len(queries) <= 6
    on_locks = f"FROM {connection.ops.quote_name('distlock_lock')}"
    with connection.cursor() as cursor:
        for sql in (each["sql"] for each in queries if on_locks in each["sql"]):
            cursor.execute(f"{EXPLAIN.get(connection.vendor, 'EXPLAIN')} {sql}")
            for row in cursor.fetchall():
                yield " ".join(map(str, row))


@pytest.mark.parametrize(
    ("alias", "statistics"),
    [
        pytest.param("default", None, id="sqlite"),
        pytest.param("postgresql", NO_STATISTICS, marks=needs_postgresql, id="postgresql"),
        pytest.param(
            "postgresql", "ANALYZE distlock_lock", marks=needs_postgresql, id="postgresql-analyzed"
        ),
        pytest.param(
            "mariadb",
            "ANALYZE TABLE distlock_lock",
            marks=pytest.mark.needs("mariadb"),
            id="mariadb",
        ),
    ],
)
@pytest.mark.parametrize("held_each", [2, 2_000], ids=["all held", "few held"])
def test_no_query_of_a_page_reads_the_whole_table(
    alias: str, statistics: str | None, held_each: int
) -> None:
    """Whatever the database knows of it: at first, PostgreSQL knows nothing."""
    write(alias, MANY[alias], held_each)
    if statistics is not None:
        with connections[alias].cursor() as cursor:
            cursor.execute(statistics)
    vendor = connections[alias].vendor
    with mock.patch.object(DatabaseBackend, "window", 200):
        for name, query in QUERIES.items():
            whole = WHOLE_TABLE[vendor]
            if query.state is not LockState.RELEASED:
                whole = f"{whole}|{IN_ORDER[vendor]}"
            found = [*plans(alias, query)]
            assert found
            assert [plan for plan in found if re.search(whole, plan)] == [], name


@on_each_database
def test_locks_in_the_window_are_counted_exactly(alias: str) -> None:
    """Among them no lock that was only kept for a while, until now."""
    write(alias, 40, 10)
    past = datetime(2020, 1, 1, tzinfo=UTC)
    Lock.objects.using(alias).create(semaphore="kept", owner=KEPT, token=1, expires_at=past)
    page = store(alias).page(LockQuery(limit=3))
    assert (page.found, page.counts, page.is_capped) == (
        8,
        {LockState.HELD: 4, LockState.STALE: 4},
        False,
    )
    assert [lock.semaphore for lock in page.locks] == ["lock-000000", "lock-000001", "lock-000010"]
    with mock.patch.object(DatabaseBackend, "window", 3):
        page = store(alias).page(LockQuery(page=2, limit=2))
    assert (page.found, page.is_capped) == (2, True)  # the one that is free comes first
    assert page.locks == []
    Lock.objects.using(alias).filter(semaphore="kept").delete()
    with mock.patch.object(DatabaseBackend, "window", 3):
        page = store(alias).page(LockQuery(page=2, limit=2))
    assert (page.found, page.is_capped, page.counts[LockState.HELD]) == (3, True, 2)
    assert [lock.semaphore for lock in page.locks] == ["lock-000010"]


@on_each_database
def test_released_locks_are_listed_page_by_page(alias: str) -> None:
    """With the counts of the others, as ever."""
    write(alias, 40, 10)
    page = store(alias).page(LockQuery(state=LockState.RELEASED, page=2, limit=30))
    assert [lock.semaphore for lock in page.locks] == ["lock-000038", "lock-000039"]
    assert {lock.state for lock in page.locks} == {LockState.RELEASED}
    assert page.found == 32
    assert page.counts == {LockState.HELD: 4, LockState.STALE: 4}


@on_each_database
def test_released_lock_is_found_with_its_token(alias: str) -> None:
    """It has no holder any more, but its last one is told."""
    lease = acquire(alias, label="invoices")
    assert lease.release()
    found = store(alias).find("1234collectPayment")
    assert found is not None
    assert (found.state, found.token, found.label) == (LockState.RELEASED, lease.token, "invoices")
    assert store(alias).find("another") is None


@on_each_database
def test_search_for_what_no_semaphore_can_have_finds_nothing(alias: str) -> None:
    """Not even among more locks than are looked at."""
    write(alias, 40, 10)
    with mock.patch.object(DatabaseBackend, "window", 3):
        page = store(alias).page(LockQuery(search="\x00"))
    assert (page.locks, page.found, page.scope) == ([], 0, SearchScope.PREFIX)


@on_each_database
def test_index_can_be_removed_and_made_again(alias: str) -> None:
    """As by a later migration: on MySQL's family with its column."""
    [index] = Lock._meta.indexes
    with connections[alias].schema_editor() as editor:
        editor.remove_index(Lock, index)
    with connections[alias].schema_editor() as editor:
        editor.add_index(Lock, index)
    acquire(alias)
    assert len([*store(alias).held()]) == 1


@pytest.mark.needs("postgresql")
@pytest.mark.usefixtures("fresh_listeners")
def test_waiters_are_counted_by_one_query_for_a_page() -> None:
    """And are listed in their order; none of a process that is dead."""
    lease, other = acquire(ALIAS), acquire(ALIAS, "another")
    with Line() as line:
        waiting = [line.join(), line.join()]
        with CaptureQueriesContext(operating_connection(ALIAS)) as queries:
            page = store(ALIAS).page(LockQuery())
        counted = {lock.semaphore: lock.waiting for lock in page.locks}
        assert counted == {"1234collectPayment": 2, "another": 0}
        assert len([each for each in queries if "distlock_lockwaiter" in each["sql"]]) == 1
        assert [lock.waiting for lock in store(ALIAS).held("1234")] == [2]
        waiters = store(ALIAS).waiters("1234collectPayment") or []
        assert [waiter.holder for waiter in waiters]
        assert len(waiters) == 2
        assert lease.release()
        for each in waiting:
            assert granted(each).release()
    assert other.release()


@pytest.mark.parametrize("alias", ["default"])
def test_waiters_are_not_known_without_a_queue(alias: str) -> None:
    """They try again by themselves."""
    acquire(alias)
    [lock] = store(alias).page(LockQuery()).locks
    assert lock.waiting is None
    assert store(alias).waiters("1234collectPayment") is None
