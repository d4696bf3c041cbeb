"""Release stale locks and delete released ones, a few rows in each transaction.

However many locks there are, only one batch is in memory, and its rows are locked for a few
milliseconds. Rows that others have locked are skipped, because they are in use.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from operator import itemgetter, methodcaller
from time import sleep
from typing import Any, Final, NamedTuple

from django.db import connections, transaction

from django_distlock.fields import MICROSECOND, to_datetime
from django_distlock.models import Lock, LockQuerySet
from django_distlock.records import LockInfo, LockState
from django_distlock.semaphores.validation import first_after

from .statements import Parameters

BATCH: Final = 200
"""How many rows the ORM reads, and changes, together."""

PAGE: Final = 100
"""How many rows one statement changes, on PostgreSQL."""

PAUSE: Final = 0.0025
"""Seconds after each change, which leave processors and disk to the workers."""

AFTER_ALL: Final = "\U0010ffff" * 256
"""A text behind each semaphore."""

# PostgreSQL's, in one statement a page. `page` is materialized, because by its estimates of more
# conditions the planner would read and sort the whole table for each page. What a power failure
# undoes is done the next time.
CLEAR_STALE: Final = """
WITH page AS MATERIALIZED (
    SELECT semaphore FROM {table}
    WHERE semaphore >= %(first)s::varchar
    ORDER BY semaphore LIMIT %(page)s::bigint
), stale AS MATERIALIZED (
    SELECT lock.semaphore, token, holder, acquired_at, expires_at
    FROM page JOIN {table} AS lock ON lock.semaphore = page.semaphore, set_config(
        'synchronous_commit',
        CASE WHEN %(joins)s::bool THEN current_setting('synchronous_commit') ELSE 'off' END,
        true
    ) AS durability
    WHERE page.semaphore < %(end)s::varchar
        AND owner NOT IN ('', '{kept}') AND expires_at <= {now}
    FOR UPDATE OF lock SKIP LOCKED
), changed AS (
    UPDATE {table} AS lock SET owner = '', expires_at = {now}
    FROM stale WHERE lock.semaphore = stale.semaphore
    RETURNING stale.*
)
SELECT page.last, changed.*, {now}
FROM (SELECT max(semaphore) AS last FROM page) AS page LEFT JOIN changed ON true
"""

PURGE_RELEASED: Final = """
WITH page AS MATERIALIZED (
    SELECT semaphore FROM {table}
    WHERE semaphore >= %(first)s::varchar
    ORDER BY semaphore LIMIT %(page)s::bigint
), released AS MATERIALIZED (
    SELECT lock.semaphore, token, holder, acquired_at, expires_at
    FROM page JOIN {table} AS lock ON lock.semaphore = page.semaphore, set_config(
        'synchronous_commit',
        CASE WHEN %(joins)s::bool THEN current_setting('synchronous_commit') ELSE 'off' END,
        true
    ) AS durability
    WHERE page.semaphore < %(end)s::varchar
        AND (owner = '' OR owner = '{kept}' AND expires_at <= {now})
        AND expires_at < {now} - %(age)s::bigint AND token < {now}
    FOR UPDATE OF lock SKIP LOCKED
), changed AS (
    DELETE FROM {table} AS lock
    USING released WHERE lock.semaphore = released.semaphore
    RETURNING released.*
)
SELECT page.last, changed.*, {now}
FROM (SELECT max(semaphore) AS last FROM page) AS page LEFT JOIN changed ON true
"""

Row = tuple[Any, ...]
"""The end of the page, and the values of LockInfo for a lock that was changed, else None."""


class Job(NamedTuple):
    """Which locks to change, and how: by the ORM, and in one statement on PostgreSQL."""

    select: Callable[[LockQuerySet], LockQuerySet]
    change: Callable[[LockQuerySet], object]
    state: LockState
    """The state of these locks until then."""
    sql: str
    parameters: Parameters


def clear_stale() -> Job:
    """Return the job that releases stale locks."""
    return Job(LockQuerySet.stale, LockQuerySet.mark_released, LockState.STALE, CLEAR_STALE, {})


def purge_released(older_than: timedelta) -> Job:
    """Return the job that deletes locks which were released longer ago than that."""
    age = {"age": older_than // MICROSECOND}
    purgeable = methodcaller("purgeable", older_than)
    return Job(purgeable, LockQuerySet.delete, LockState.RELEASED, PURGE_RELEASED, age)


def batches(locks: LockQuerySet, job: Job) -> Iterator[list[Lock]]:
    """Read BATCH locks at a time; yield those of them that the job selects."""
    locks = locks.order_by("pk")
    last: str | None = ""
    while last is not None:
        rest = locks.filter(pk__gt=last)
        last = next(iter(rest.values_list("pk", flat=True)[BATCH - 1 : BATCH]), None)
        page = rest if last is None else rest.filter(pk__lte=last)
        yield list(job.select(page).with_state())


def change(
    locks: LockQuerySet, job: Job, send: Callable[[Callable[[], list[Lock]]], list[Lock]]
) -> Iterator[Lock]:
    """Change the locks by the ORM, some at a time; yield those that were changed.

    Row by row where rows can be locked: MySQL's family also locks rows that it only looks at, and a
    renewal would find its row locked. SQLite has one writer only.
    """
    by_row = connections[locks.db].features.has_select_for_update
    for batch in batches(locks, job):
        for some in [[lock] for lock in batch] if by_row else [batch] if batch else []:
            yield from send(partial(_change, some, locks, job))
            if not by_row:
                sleep(PAUSE)


def _change(batch: list[Lock], locks: LockQuerySet, job: Job) -> list[Lock]:
    """Change those of the rows that are still as they were read, and not locked by others."""
    features = connections[locks.db].features
    rows = job.select(locks).filter(pk__in=[lock.pk for lock in batch]).order_by()
    with transaction.atomic(using=locks.db):
        if not features.has_select_for_update:
            # On SQLite, only a transaction that begins with a write can wait for other writers.
            locks.filter(pk="").update(token=0)
        locked = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        tokens = dict(locked.values_list("pk", "token"))
        changed = [lock for lock in batch if tokens.get(lock.pk) == lock.token]
        job.change(rows.filter(pk__in=[lock.pk for lock in changed]))
    return changed


def change_pages(
    prefix: str, job: Job, send: Callable[[str, Parameters], list[Row]]
) -> Iterator[LockInfo]:
    """Send PostgreSQL's statement for page after page; yield the locks that were changed."""
    first, end = prefix, first_after(prefix) or AFTER_ALL
    while first < end:
        rows = send(job.sql, {**job.parameters, "first": first, "end": end, "page": PAGE})
        last = rows[0][0]
        first = end if last is None else last + "\x01"  # no semaphore is in between
        if rows[0][1] is not None:
            # With a plan for a small table, the rows come in another order.
            yield from (_info(job.state, *row) for _, *row in sorted(rows, key=itemgetter(1)))
            sleep(PAUSE)


def _info(
    state: LockState,
    semaphore: str,
    token: int,
    holder: str,
    acquired_at: int | None,
    expires_at: int,
    now: int,
) -> LockInfo:
    acquired = None if acquired_at is None else to_datetime(acquired_at)
    return LockInfo(
        semaphore, state, token, holder, acquired, to_datetime(expires_at), to_datetime(now)
    )
