"""How a process hears on PostgreSQL that it is its waiters' turn, and what if it doesn't."""

import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
from django.db import connections

from django_distlock import Lease, acquire_lock, clocks
from django_distlock.backends import listening as life_cycle
from django_distlock.backends.database import DatabaseBackend, listening, places
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.places import QueuedPlace
from django_distlock.backends.database.postgresql import PostgreSQLStatements
from django_distlock.backends.sockets import daemons
from django_distlock.concurrency import process_queue
from django_distlock.concurrency.process_queue import recent_handovers
from django_distlock.leases.request import new_owner
from django_distlock.models import Lock, WaitingProcess
from tests.support.concurrency import elsewhere, until
from tests.support.databases import another_database, behind_pgbouncer, committed
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


def test_nobody_waits_until_the_process_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for less is told so in time, and who is offered the lock finds that by itself."""
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


def test_notifications_of_nobody_mean_nothing(only_woken: None, listened: list[int]) -> None:
    """Of a waiter that has left, say; who waits is woken as ever."""
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
    """Who waits goes on waiting, and is woken: as after a restart of the server."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        terminate(listened[0])
        until(lambda: len(listened) > 1 and current_listener().is_listening)
        lease.release()
        assert granted(waiting).release()


def test_late_probe_is_repeated_soon_and_then_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until it is a few minutes: one process may have been busy, or be behind a pooler."""
    listener = listening.Listener(
        listening.Database(ALIAS, ("name", "host", 5432), DatabaseBackend.statements, 2, 2)
    )
    now = 1000.0
    monkeypatch.setattr(clocks, "monotonic", lambda: now)
    assert [listener.suspend() for _ in range(5)] == [1, 5, 30, 300, 300]
    assert not listener.may_listen()
    now += 300
    assert listener.may_listen()
    assert listener.suspend() == 300
    now += 601
    assert listener.suspend() == 1


def test_who_waits_is_woken_after_a_late_probe(
    only_woken: None, listened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process hears though it was thought not to."""
    monkeypatch.setattr(listening.Listener, "suspensions", (0.01,))
    monkeypatch.setattr(listening, "PROBING", 0.1)
    notify, late = PostgreSQLStatements.notify, [True]

    def be_late(statements: PostgreSQLStatements, process: int) -> None:
        if late:
            late.pop()
        else:
            monkeypatch.setattr(listening, "PROBING", SOON)
            notify(statements, process)

    monkeypatch.setattr(PostgreSQLStatements, "notify", be_late)
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        assert len(listened) == 2
        lease.release()
        assert granted(waiting).release()


def test_probe_over_a_connection_that_was_cut_has_it_replaced(
    only_woken: None, listened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again with another one."""
    cut: list[int] = []
    notify = PostgreSQLStatements.notify

    def cut_first(statements: PostgreSQLStatements, process: int) -> None:
        if not cut:
            until(lambda: bool(places.places))
            [(session,)] = statements.fetch("SELECT pg_backend_pid()", {})
            cut.append(session)
            elsewhere(lambda: terminate(session))
        notify(statements, process)

    monkeypatch.setattr(PostgreSQLStatements, "notify", cut_first)
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        assert len(listened) == 2
        lease.release()
        assert granted(waiting).release()


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("told", [True, False])
def test_behind_a_pooler_waiters_try_again_and_again(
    told: bool, listened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was told by DISABLE_SERVER_SIDE_CURSORS, or notices that it hears nothing."""
    monkeypatch.setattr(listening, "PROBING", 0.2)
    monkeypatch.setattr(listening.Listener, "suspensions", (600.0,))
    monkeypatch.setattr(own, "can_prepare", lambda settings: False)
    # Of the session that was heard on: another one would be noticed, too.
    vouched = lambda *_: [(listened[-1], None, None, None)]  # noqa: E731 - it may be asked, or not
    monkeypatch.setattr(PostgreSQLStatements, "heartbeat", vouched)
    with behind_pgbouncer(DISABLE_SERVER_SIDE_CURSORS=told):
        lease = acquire(ALIAS)
        place = store().join("1234collectPayment", new_owner(), "", lambda: None)
        assert (place is None) is told
        if place is not None:
            until(lambda: not store().queues_all)
            store().leave(place, False)
        assert not store().queues_all
        assert (
            elsewhere(lambda: acquire_lock("1234collectPayment", timeout=0.1, backend=ALIAS))
            is None
        )
        assert waiters() == 0
        lease.release()


def test_session_that_is_another_one_is_not_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooler may take its time to hand out another session."""
    monkeypatch.setattr(listening.Listener, "suspensions", (600.0,))
    rows = [(0, None, None, None)]
    with mock.patch.object(PostgreSQLStatements, "heartbeat", return_value=rows):
        place = store().join("1234collectPayment", new_owner(), "", lambda: None)
        assert place is not None
        until(lambda: not current_listener().may_listen())
    assert not store().queues_all
    store().leave(place, False)


class RowIsLocked(Exception):
    """What the driver raises if another transaction has the lock's row."""

    sqlstate = "55P03"


@pytest.mark.usefixtures("long_offers")
@pytest.mark.parametrize(("error", "sessions"), [(RowIsLocked, 1), (ZeroDivisionError, 2)])
def test_listener_goes_on_after_an_error(
    error: type[Exception], sessions: int, only_woken: None, listened: list[int]
) -> None:
    """On the same session if it was a locked row, which is tried again at the next time."""
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
    """As under uWSGI without --enable-threads, or when there are too many."""
    monkeypatch.setattr(daemons, "lacks_threads", lambda: True)
    assert store().join("1234collectPayment", new_owner(), "", lambda: None) is None
    monkeypatch.setattr(daemons, "lacks_threads", lambda: False)
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError):
        assert store().join("1234collectPayment", new_owner(), "", lambda: None) is None
    assert waiters() == 0


def test_connection_is_closed_when_nobody_has_waited_for_a_while(
    listened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And opened again for the next waiter; until then the same one serves all."""
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
    """PostgreSQL drops none that has sessions."""
    with another_database(ALIAS):
        acquire(ALIAS)
        place, _, _ = wait_by_hand()
        listener = current_listener()
        store().leave(place, False)
        assert listener.is_listening
    assert not listener.is_listening


def test_forked_child_has_a_listener_of_its_own() -> None:
    """And the parent's waiters are woken as before."""
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


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that are lost are never released."""
    monkeypatch.setattr(places, "MANY", 1)
    monkeypatch.setattr(process_queue, "MOST_HANDOVERS", 1)
    for name in ("first", "second"):
        places.remember(name)
        recent_handovers.add(ALIAS, name)
    assert not places.had_to_wait("first")
    assert places.had_to_wait("second")
    assert not recent_handovers.pop(ALIAS, "first")
    assert recent_handovers.pop(ALIAS, "second")
