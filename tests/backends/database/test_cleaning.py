"""How stale and released locks are cleaned up: in batches, beside running workers."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_distlock import lock_backends
from django_distlock.backends.database import cleaning
from django_distlock.leases.request import new_owner
from django_distlock.models import KEPT, Lock
from tests.support.concurrency import elsewhere
from tests.support.databases import (
    DATABASES,
    committed,
    locked_row,
    on_each_database,
    on_each_server,
    operating_connection,
    statements_sent,
)
from tests.support.processes import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


pytestmark = committed

HOUR = timedelta(hours=1)
SECRET = "5ec2e7" * 5
on_each_without_returning = pytest.mark.parametrize("alias", [DATABASES[0], DATABASES[2]])
on_each_job = pytest.mark.parametrize("job", ["purge", "clear"])


def write(alias: str, number: int, job: str, prefix: str = "page-") -> None:
    """Write so many locks for the job."""
    ended = datetime.now(UTC) - 5 * HOUR
    Lock.objects.using(alias).bulk_create(
        Lock(
            semaphore=f"{prefix}{each:05}:edit",
            owner="" if job == "purge" else SECRET,
            token=1,
            acquired_at=ended,
            expires_at=ended,
        )
        for each in range(number)
    )


def do(alias: str, job: str, prefix: str = "", *, dry_run: bool = False) -> list[str]:
    """Run the job; return which locks it processed."""
    return [lock.semaphore for lock in begin(alias, job, prefix, dry_run=dry_run)]


def begin(alias: str, job: str, prefix: str = "", *, dry_run: bool = False) -> Iterator[Any]:
    store = lock_backends[alias]
    if job == "purge":
        return store.purge_released(HOUR, prefix, dry_run=dry_run)
    return store.clear_stale(prefix, dry_run=dry_run)


def left(alias: str, job: str) -> list[str]:
    """Return which locks the job has still to process."""
    locks = Lock.objects.using(alias)
    todo = locks.purgeable(HOUR) if job == "purge" else locks.stale()
    return [lock.semaphore for lock in todo]


@on_each_database
@on_each_job
@pytest.mark.parametrize("number", [0, 1, 6, 7])
@pytest.mark.parametrize("dry_run", [True, False])
def test_each_lock_is_dealt_with_once(
    alias: str, job: str, number: int, dry_run: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the semaphores, wherever a batch ends, and whatever rows are in between."""
    monkeypatch.setattr(cleaning, "BATCH", 3)
    monkeypatch.setattr(cleaning, "PAGE", 3)
    write(alias, number, job)
    write(alias, 4, job, "other-")
    write(alias, 6, "clear" if job == "purge" else "purge", "page-00001:")
    expected = [f"page-{each:05}:edit" for each in range(number)]
    assert do(alias, job, "page-", dry_run=dry_run) == expected
    assert do(alias, job, "page-", dry_run=dry_run) == (expected if dry_run else [])
    assert len(left(alias, job)) == 4 + number * dry_run


def peak(alias: str, job: str, number: int) -> int:
    """Return how many bytes the job takes for so many locks."""
    Lock.objects.using(alias).all().delete()
    write(alias, number, job)
    gc.collect()
    tracemalloc.start()
    try:
        assert sum(1 for _ in begin(alias, job)) == number
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.once
@on_each_database
@on_each_job
def test_memory_does_not_grow_with_the_number_of_locks(alias: str, job: str) -> None:
    """A thousand more, read all at once, would take another 300,000 bytes; on MariaDB 540,000."""
    limit = 400_000 if alias == "mariadb" else 200_000  # there, each row has queries of its own
    write(alias, 1, job)
    do(alias, job)  # imports and caches are done
    assert peak(alias, job, 1250) - peak(alias, job, 250) < limit


@on_each_job
def test_sqlite_takes_a_few_statements_a_batch(job: str) -> None:
    """Not some for each lock."""
    write("default", 600, job)
    with CaptureQueriesContext(connections["default"]) as queries:
        assert len(do("default", job)) == 600
    assert len(queries) <= 8 * (600 // cleaning.BATCH + 1)


@pytest.mark.needs("postgresql")
@on_each_job
def test_postgresql_takes_one_statement_a_page(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that finds the end."""
    monkeypatch.setattr(cleaning, "PAGE", 30)
    write("postgresql", 60, job)
    assert len(statements_sent("postgresql", lambda: do("postgresql", job))) == 3
    assert left("postgresql", job) == []


def test_locks_of_a_page_are_returned_in_order() -> None:
    """PostgreSQL's plan may find them in another one."""
    rows: list[tuple[Any, ...]] = [
        ("page-3", f"page-{number}", 1, "", None, 1, 2) for number in (2, 3, 1)
    ]
    answers = iter([rows, [(None, None, None, None, None, None, 2)]])
    cleaned = cleaning.change_pages("page-", cleaning.clear_stale(), lambda *_: next(answers))
    assert [lock.semaphore for lock in cleaned] == ["page-1", "page-2", "page-3"]


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize(
    "statistics",
    ["DELETE FROM pg_statistic WHERE starelid = 'distlock_lock'::regclass", "ANALYZE"],
    ids=["unknown", "known"],
)
def test_postgresql_finds_each_page_by_the_index(statistics: str) -> None:
    """Also of a table without statistics: else each page would read all of it.

    Any statistics there are would describe another test's rows.
    """
    write("postgresql", 20_000, "purge")
    parameters: dict[str, Any] = {
        "first": "page-1",
        "end": cleaning.AFTER_ALL,
        "page": 100,
        "joins": False,
    }
    explain = f"EXPLAIN {cleaning.PURGE_RELEASED}".format(
        table=Lock._meta.db_table, now="0", kept=KEPT
    )
    with connections["postgresql"].cursor() as cursor:
        cursor.execute(statistics)
        cursor.execute(explain, {**parameters, "age": 1})
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Seq Scan" not in plan
    assert "Sort" not in plan


@on_each_server
@on_each_job
def test_locked_row_is_skipped(alias: str, job: str) -> None:
    """The job doesn't wait for it, and processes the others."""
    write(alias, 3, job)
    with locked_row(alias, "page-00001:edit"):
        assert do(alias, job) == ["page-00000:edit", "page-00002:edit"]
    assert left(alias, job) == ["page-00001:edit"]


@pytest.mark.needs("mariadb")
@on_each_job
def test_mariadb_locks_one_row_at_a_time(job: str) -> None:
    """A statement for several would lock the others of a small table, too."""
    write("mariadb", 3, job)
    with CaptureQueriesContext(operating_connection("mariadb")) as queries:
        assert len(do("mariadb", job)) == 3
    locking = [query["sql"] for query in queries if "FOR UPDATE SKIP LOCKED" in query["sql"]]
    assert [sql.count(":edit") for sql in locking] == [1, 1, 1]


@pytest.mark.needs("mariadb")
@on_each_job
def test_row_is_waited_for_where_locked_ones_cannot_be_skipped(job: str) -> None:
    """MariaDB before 10.6 has no SKIP LOCKED."""
    write("mariadb", 3, job)
    features = operating_connection("mariadb").features
    with mock.patch.object(features, "has_select_for_update_skip_locked", False):
        assert len(do("mariadb", job)) == 3
    assert left("mariadb", job) == []


@contextmanager
def in_parallel(alias: str, act: Callable[[], object]) -> Iterator[None]:
    """Run something in another thread after a batch was read and before it is changed."""
    acts = [act]

    def intrude(execute: Any, sql: str, *arguments: Any) -> Any:
        if acts and (sql.startswith("BEGIN") or "FOR UPDATE" in sql):
            elsewhere(acts.pop())
        return execute(sql, *arguments)

    with operating_connection(alias).execute_wrapper(intrude):
        yield
    assert not acts


@on_each_without_returning
@on_each_job
def test_lock_that_a_worker_takes_after_it_was_read_is_left_to_it(alias: str, job: str) -> None:
    """The rest of the batch is processed. PostgreSQL reads and changes in one statement."""
    write(alias, 3, job)
    owner = new_owner()

    def take() -> None:
        assert lock_backends[alias].acquire("page-00001:edit", owner, 60, "worker")

    with in_parallel(alias, take):
        assert do(alias, job) == ["page-00000:edit", "page-00002:edit"]
    lock = Lock.objects.using(alias).get(semaphore="page-00001:edit")
    assert (lock.owner, lock.holder) == (owner, "worker")


@on_each_without_returning
def test_lock_that_was_granted_again_is_skipped(alias: str) -> None:
    """Even if that grant has expired, too: the printed holder would be another one."""
    write(alias, 2, "clear")
    row = Lock.objects.using(alias).filter(semaphore="page-00001:edit")
    with in_parallel(alias, lambda: row.update(token=2)):
        assert do(alias, "clear") == ["page-00000:edit"]
    assert left(alias, "clear") == ["page-00001:edit"]


@pytest.mark.once
@on_each_database
def test_workers_exclude_each_other_beside_a_purge(alias: str, tmp_path: Path) -> None:
    """Every lock is purged as soon as it is free: none is granted twice or lost; tokens rise."""
    file = tmp_path / "counter"
    file.write_text("0")
    purging = Workers(2, "purge_on", alias)
    with Workers(3, "race", alias, str(file), "40", "50") as workers, purging:
        results = workers.results()
        purging.proceed()
        purged = purging.results()
    assert file.read_text() == "120"
    granted = [name for result in results for name in result["granted"]]
    assert sorted(granted) == sorted(f"fresh {number}" for number in range(50))
    tokens = [token for _, token in sorted(tuple(one) for each in results for one in each["seen"])]
    assert tokens == sorted(set(tokens))
    assert sum(number for [number] in purged) > 0
