"""How a process is notified on PostgreSQL of its waiters' offers, and what if it is not."""

import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
from django.db import connections

from django_distlock import Lease, acquire_lock, threads
from django_distlock.backends import listening as life_cycle
from django_distlock.backends.database import listening, places
from django_distlock.backends.database.places import QueuedPlace
from django_distlock.backends.database.postgresql import PostgreSQLStatements
from django_distlock.concurrency import process_queue
from django_distlock.concurrency.process_queue import recent_handovers
from django_distlock.leases.request import new_owner
from django_distlock.models import Lock, WaitingProcess
from tests.support.concurrency import elsewhere, until
from tests.support.databases import another_database, committed
from tests.support.holders import acquire
from tests.support.postgresql_waiters import (
    ALIAS,
    PAST,
    SOON,
    Line,
    current_listener,
    granted,
    store,
    terminate,
    until_waiting,
    wait_by_hand,
    waiters,
)
from tests.support.processes import forked

pytestmark = [
    committed,
    pytest.mark.needs("postgresql"),
    pytest.mark.usefixtures("fresh_listeners"),
    pytest.mark.once,
]


def test_timeout_includes_the_time_until_the_process_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A short wait ends on time; a longer one finds its offer without a notification."""
    may_listen = threading.Event()
    in_time: list[bool] = []
    listen = PostgreSQLStatements.listen

    def listen_late(statements: PostgreSQLStatements, process: int) -> int:
        in_time.append(may_listen.wait(SOON))
        return listen(statements, process)

    def wait() -> Lease | None:
        return acquire_lock("1234collectPayment", timeout=SOON, backend=ALIAS)

    monkeypatch.setattr(PostgreSQLStatements, "listen", listen_late)
    lease = acquire(ALIAS)
    assert (
        elsewhere(lambda: acquire_lock("1234collectPayment", timeout=0.01, backend=ALIAS)) is None
    )
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(elsewhere, wait)
        until_waiting(1)
        lease.release()
        assert granted(waiting).release()
    assert not in_time
    may_listen.set()
    until(lambda: in_time == [True])


def test_lost_notification_costs_little(only_woken: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process notices that its waiter was taken out of the table."""
    monkeypatch.setattr(QueuedPlace, "offer", lambda place: None)
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        lease.release()
        assert granted(waiting).release()


def test_notification_for_an_unknown_waiter_is_ignored(
    only_woken: None, listened: list[int]
) -> None:
    """The waiter may have left. Those that wait are woken as usual."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        channel = f"distlock_{current_listener().process}"
        with connections[ALIAS].cursor() as cursor:
            for number in (-1, 0):
                cursor.execute("SELECT pg_notify(%s, %s)", [channel, str(number)])
        lease.release()
        assert granted(waiting).release()
    assert len(listened) == 1


def test_session_that_is_gone_is_replaced(only_woken: None, listened: list[int]) -> None:
    """Waiters keep waiting, and are woken: as after a restart of the server."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        terminate(listened[0])
        until(lambda: len(listened) > 1 and current_listener().is_listening)
        lease.release()
        assert granted(waiting).release()


class RowIsLocked(Exception):
    """The driver's error if another transaction has locked the row."""

    sqlstate = "55P03"


@pytest.mark.usefixtures("long_offers")
@pytest.mark.parametrize(("error", "sessions"), [(RowIsLocked, 1), (ZeroDivisionError, 2)])
def test_listener_goes_on_after_an_error(
    error: type[Exception], sessions: int, only_woken: None, listened: list[int]
) -> None:
    """After a locked row it keeps its session, and tries again the next time."""
    acquire(ALIAS, renew=False)
    offer_free, errors = PostgreSQLStatements.offer_free, [error()]

    def fail_once(statements: PostgreSQLStatements, semaphore: str) -> None:
        if errors:
            raise errors.pop()
        offer_free(statements, semaphore)

    with Line() as line, mock.patch.object(PostgreSQLStatements, "offer_free", fail_once):
        first, second = line.join(), line.join()
        Lock.objects.using(ALIAS).update(expires_at=PAST)
        lease = granted(first)
        until(lambda: len(listened) == sessions and current_listener().is_listening)
        lease.release()
        assert granted(second).release()
    assert not errors
    assert len(listened) == sessions


def test_without_threads_nobody_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under uWSGI without --enable-threads, or at the limit of threads."""
    monkeypatch.setattr(threads, "lacks_threads", lambda: True)
    assert store().join("1234collectPayment", new_owner(), "", lambda: None) is None
    monkeypatch.setattr(threads, "lacks_threads", lambda: False)
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError):
        assert store().join("1234collectPayment", new_owner(), "", lambda: None) is None
    assert waiters() == 0


def test_connection_is_closed_when_nobody_has_waited_for_a_while(
    listened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next waiter opens another; until then one connection serves all waiters."""
    monkeypatch.setattr(life_cycle, "IDLE", 600.0)
    lease = acquire(ALIAS)
    with Line() as line:
        store().leave(wait_by_hand()[0], False)
        waiting = line.join()
        lease.release()
        granted(waiting).release()
        assert len(listened) == 1
        monkeypatch.setattr(life_cycle, "IDLE", 0.0)
        store().leave(wait_by_hand()[0], False)
        until(lambda: not current_listener().is_listening)
        until(lambda: not WaitingProcess.objects.using(ALIAS).exists())
        monkeypatch.setattr(life_cycle, "IDLE", 600.0)
        lease = acquire(ALIAS)
        waiting = line.join()
        lease.release()
        granted(waiting).release()
    assert len(listened) == 2


def test_connection_is_closed_before_a_test_database_is_dropped() -> None:
    """PostgreSQL drops no database that has sessions."""
    with another_database(ALIAS):
        acquire(ALIAS)
        place, _, _ = wait_by_hand()
        listener = current_listener()
        store().leave(place, False)
        assert listener.is_listening
    assert not listener.is_listening


def test_forked_child_has_a_listener_of_its_own() -> None:
    """The parent's waiters are woken as before."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        parents = current_listener().process

        def wait_in_child() -> None:
            connections[ALIAS].connection = None  # the parent's
            assert not places.places
            place, _, _ = wait_by_hand("waited for in the child")
            assert current_listener().process != parents
            store().leave(place, False)
            listening.close_listeners()

        with forked(wait_in_child):
            pass
        lease.release()
        assert granted(waiting).release()


def test_remembered_leases_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost leases are never released, so their entries must not pile up."""
    monkeypatch.setattr(places, "MANY", 1)
    monkeypatch.setattr(process_queue, "MOST_HANDOVERS", 1)
    for name in ("first", "second"):
        places.remember(name)
        recent_handovers.add(ALIAS, name)
    assert not places.had_to_wait("first")
    assert places.had_to_wait("second")
    assert not recent_handovers.pop(ALIAS, "first")
    assert recent_handovers.pop(ALIAS, "second")
