"""Locks that are taken and released during another call of the same thread.

A signal handler may do so, or the garbage collector, when it closes a generator that was abandoned
in a locked block. Then the thread must not wait for a lock or connection that it uses itself.
"""

import math
import threading
from collections.abc import Callable, Generator
from typing import Any
from unittest import mock

import pytest
from django.db.backends.signals import connection_created

from django_distlock import acquire_lock, distributed_lock, signals
from django_distlock.backends.database import connections as own
from django_distlock.backends.database import listening
from django_distlock.backends.database.backend import DatabaseBackend
from django_distlock.backends.database.statements import Statements
from tests.support.concurrency import Interrupted, until, used_elsewhere
from tests.support.databases import committed, on_each_server, pool_of, sessions
from tests.support.holders import acquire, free_for_others
from tests.support.processes import Workers

pytestmark = committed


def ends(call: Callable[[], object]) -> bool:
    """Return whether the call ends, in a thread that may keep hanging."""
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(call()), daemon=True)
    thread.start()
    thread.join(30)
    return bool(done)


def needing(name: str, *connections: str) -> list[Any]:
    """Return the parameters for this server: alias and number of connections for locks."""
    marks = [pytest.mark.needs(name), pytest.mark.once]
    return [pytest.param(name, each, marks=marks) for each in connections or [""]]


@pytest.mark.parametrize(
    ("alias", "connections"),
    [
        ("default", ""),
        ("memory", ""),
        *needing("postgresql", "1", "2"),
        *needing("mariadb", "1", "2"),
        *needing("redis"),
        *needing("lock_server"),
    ],
)
def test_signal_handler_may_take_locks_during_a_call(alias: str, connections: str) -> None:
    """At any moment, beside a lease that is renewed; tables in memory have a lock, too."""
    with Workers(1, "interrupt", alias, connections, "100") as workers:
        [done] = workers.results()
    assert done["granted"] >= 100


def interrupted_once(alias: str, interruption: Callable[[], object]) -> Any:
    """Interrupt once, while the thread uses one of the locks' own connections."""
    statements = pool_of(alias).all[0].statements(math.inf)
    once, send = [interruption], statements.fetch

    def interrupted(*arguments: Any) -> Any:
        if once:
            once.pop()()
        return send(*arguments)

    return mock.patch.object(Statements, "fetch", lambda self, *arguments: interrupted(*arguments))


@on_each_server
def test_abandoned_block_may_be_collected_during_a_call(alias: str) -> None:
    """Even if another thread occupies the only free connection."""

    def locked() -> Generator[None]:
        with distributed_lock("1234collectPayment", backend=alias):
            yield

    def work() -> bool:
        abandoned = [locked()]
        next(abandoned[0])
        with interrupted_once(alias, abandoned.clear):
            return acquire(alias, "report").release()

    acquire(alias, "report").release()
    with used_elsewhere(pool_of(alias).all[1]):
        assert ends(work)
    assert free_for_others(alias)


@on_each_server
def test_connection_that_was_opened_during_a_call_is_closed(alias: str) -> None:
    """The number of kept connections doesn't grow."""
    acquire(alias).release()
    before = sessions(alias)
    with interrupted_once(alias, lambda: acquire(alias, "report").release()):
        assert acquire(alias).release()
    until(lambda: sessions(alias) <= before)


@on_each_server
def test_interrupted_call_leaves_no_trace(alias: str) -> None:
    """Whether it has a connection, or waits for one."""

    def interrupt() -> None:
        raise Interrupted

    acquire(alias, "report").release()
    pool = pool_of(alias)
    with interrupted_once(alias, interrupt), pytest.raises(Interrupted):
        acquire_lock("1234collectPayment", backend=alias)
    lock = mock.Mock(**{"acquire.side_effect": Interrupted, "release.side_effect": RuntimeError})
    with mock.patch.object(pool.all[0], "lock", lock), pytest.raises(Interrupted):
        acquire_lock("1234collectPayment", backend=alias)
    assert not any(each.is_used for each in pool.all)
    assert acquire(alias, "report").release()
    opened = mock.Mock()
    connection_created.connect(opened)
    try:
        assert acquire(alias, "report").release()
    finally:
        connection_created.disconnect(opened)
    opened.assert_not_called()  # as for a call during another call


@on_each_server
def test_fork_during_a_call_leaves_its_connection_open(alias: str) -> None:
    """As by a fork in a signal handler."""
    acquire(alias).release()
    first = pool_of(alias).all[0]
    used = first.statements(math.inf)
    with interrupted_once(alias, own.close_own_connections):
        acquire(alias).release()
    assert first.statements(math.inf) is used


@pytest.mark.parametrize("name", [name for name in dir(signals) if name.startswith("lock_")])
def test_signal_may_be_sent_while_it_is_sent(name: str) -> None:
    """Django's Signal would wait for itself, if it has receivers."""
    signal = getattr(signals, name)

    def send() -> bool:
        with signal.lock:
            signal.send(sender=None)
        return True

    assert ends(send)


def test_listener_may_be_needed_during_a_change() -> None:
    """Another waiter may need it."""
    database = listening.Database("postgresql", (), DatabaseBackend.statements, 2, 2)
    listener = listening.Listener(database)
    inner = mock.Mock(number=1)

    class Outer:
        """A waiter whose number is read while it is added."""

        @property
        def number(self) -> int:
            """Add another one first."""
            listener.add(inner)
            return 2

    def add() -> bool:
        with mock.patch.object(listener, "start"):
            outer: Any = Outer()
            listener.add(outer)
        return True

    assert ends(add)
