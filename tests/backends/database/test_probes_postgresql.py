"""How a process finds out on PostgreSQL whether it receives notifications."""

from unittest import mock

import pytest

from django_distlock import acquire_lock, clocks
from django_distlock.backends.database import DatabaseBackend, listening, places
from django_distlock.backends.database import own_connection as own
from django_distlock.backends.database.postgresql import PostgreSQLStatements
from django_distlock.leases.request import new_owner
from tests.support.concurrency import elsewhere, until
from tests.support.databases import behind_pgbouncer, committed
from tests.support.holders import acquire
from tests.support.postgresql_waiters import (
    ALIAS,
    SOON,
    Line,
    current_listener,
    granted,
    store,
    terminate,
    waiters,
)

pytestmark = [
    committed,
    pytest.mark.needs("postgresql"),
    pytest.mark.usefixtures("fresh_listeners"),
    pytest.mark.once,
]


def test_late_probe_is_repeated_soon_and_then_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Up to every few minutes: the process may have been busy, or be behind a pooler."""
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


def test_waiter_is_woken_after_a_late_probe(
    only_woken: None, listened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process receives notifications, though it seemed not to."""
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
    """The probe is repeated over another connection."""
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
@pytest.mark.parametrize("configured", [True, False])
def test_waiters_behind_a_pooler_poll(
    configured: bool, listened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process knows by DISABLE_SERVER_SIDE_CURSORS, or notices missing notifications."""
    monkeypatch.setattr(listening, "PROBING", 0.2)
    monkeypatch.setattr(listening.Listener, "suspensions", (600.0,))
    monkeypatch.setattr(own, "can_prepare", lambda settings: False)
    # Notifications of the session that listens: another session would be noticed, too.
    vouched = lambda *_: [(listened[-1], None, None, None)]  # noqa: E731 - it may be asked, or not
    monkeypatch.setattr(PostgreSQLStatements, "heartbeat", vouched)
    with behind_pgbouncer(DISABLE_SERVER_SIDE_CURSORS=configured):
        lease = acquire(ALIAS)
        place = store().join("1234collectPayment", new_owner(), "", lambda: None)
        assert (place is None) is configured
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
