"""Waiters and holders on PostgreSQL that die or are cut off: others keep waiting."""

import asyncio
import signal
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError, ProgrammingError, connections

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock, distributed_lock
from django_distlock.backends.database import listening, places
from django_distlock.backends.database.places import QueuedPlace, Run
from django_distlock.backends.database.postgresql import PostgreSQLStatements
from django_distlock.models import Lock, LockWaiter
from tests.support.concurrency import Interrupted, elsewhere, run, until
from tests.support.databases import committed
from tests.support.holders import acquire, free_for_others
from tests.support.postgresql_waiters import (
    ALIAS,
    PAST,
    SOON,
    Line,
    another_waits,
    granted,
    store,
    until_waiting,
    wait_by_hand,
    waiters,
)
from tests.support.processes import Workers, send_and_wait
from tests.support.servers import Server

pytestmark = [
    committed,
    pytest.mark.needs("postgresql"),
    pytest.mark.usefixtures("fresh_listeners"),
    pytest.mark.once,
]


def test_dead_process_costs_a_second_however_many_waiters_it_had(only_woken: None) -> None:
    """It was killed before the release: its waiters count as alive for a moment."""
    lease = acquire(ALIAS)
    with Workers(1, "wait_in_queue", ALIAS, "20") as workers, Line() as line:
        until_waiting(20)
        waiting = line.join()
        [process] = workers.processes
        send_and_wait(process, signal.SIGKILL)
        assert lease.release()
        assert granted(waiting).release()
        until(lambda: waiters() == 0)


def test_stopped_process_is_passed_over_and_goes_on_later(only_woken: None) -> None:
    """Its offer expires; its waiters get the lock when they run again."""
    lease = acquire(ALIAS)
    with Workers(1, "wait_in_queue", ALIAS, "5") as workers, Line() as line:
        until_waiting(5)
        [process] = workers.processes
        send_and_wait(process, signal.SIGSTOP)
        try:
            waiting = line.join()
            assert lease.release()
            later = granted(waiting)
        finally:
            process.send_signal(signal.SIGCONT)
        assert later.release()
        [tokens] = workers.results()
    assert len(set(tokens)) == 5
    assert min(tokens) > (later.token or 0)


def test_waiter_killed_after_an_offer_costs_a_second(only_woken: None) -> None:
    """The offer expires, and the next waiter gets the lock."""
    lease = acquire(ALIAS)
    with Workers(1, "wait_in_queue", ALIAS, "1") as workers, Line() as line:
        until_waiting(1)
        waiting = line.join()
        [process] = workers.processes
        send_and_wait(process, signal.SIGSTOP)
        assert lease.release()
        process.send_signal(signal.SIGKILL)
        assert granted(waiting).release()


@pytest.mark.usefixtures("long_offers")
def test_lock_of_dead_holder_is_handed_over_when_its_ttl_ends(only_woken: None) -> None:
    """The first waiter gets it, and is woken."""
    acquire(ALIAS, renew=False)
    with Line() as line:
        first, second = line.join(), line.join()
        soon = datetime.now(UTC) + timedelta(seconds=0.3)
        Lock.objects.using(ALIAS).update(expires_at=soon)
        successor = granted(first)
        assert datetime.now(UTC) > soon
        assert not second.done()
        successor.release()
        granted(second).release()


@pytest.mark.parametrize("sqlstate", ["40001", "08006"])
def test_release_succeeds_though_dead_waiters_cannot_be_removed(sqlstate: str) -> None:
    """Another process removes them at the same time, or the connection is cut."""

    class Failure(Exception):
        pass

    error = OperationalError("no")
    error.__cause__ = Failure()
    error.__cause__.sqlstate = sqlstate  # type: ignore[attr-defined]
    another_waits(PAST)
    with mock.patch.object(PostgreSQLStatements, "sweep", side_effect=error):
        assert acquire(ALIAS).release()
    assert waiters() == 1
    assert acquire(ALIAS).release()
    assert waiters() == 0


@pytest.mark.usefixtures("long_offers")
@pytest.mark.parametrize("can_join", [True, False])
def test_task_that_is_cancelled_as_it_joins_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, can_join: bool
) -> None:
    """Its thread may still join, and then leaves again."""
    joining, may_go_on = threading.Event(), threading.Event()
    join = QueuedPlace.join

    def join_slowly(self: QueuedPlace, run: Run) -> bool:
        joined = can_join and join(self, run)
        joining.set()
        assert may_go_on.wait(30)
        return joined

    async def cancel_as_it_joins() -> None:
        task = asyncio.create_task(aacquire_lock("1234collectPayment", backend=ALIAS, timeout=60))
        assert await asyncio.to_thread(joining.wait, 30)
        task.cancel()
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(QueuedPlace, "join", join_slowly)
    with distributed_lock("1234collectPayment", backend=ALIAS):
        run(cancel_as_it_joins())
        assert waiters() == 0
    assert not places.places


def test_waiters_whose_rows_are_gone_join_again(only_woken: None) -> None:
    """As after a crash of the server, or if they counted as dead."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        LockWaiter.objects.using(ALIAS).all().delete()
        until_waiting(1)
        lease.release()
        assert granted(waiting).release()


def test_waiters_learn_that_the_server_is_down(servers: dict[str, Server]) -> None:
    """They wait as before when it is back."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        servers[ALIAS].stop()
        try:
            with pytest.raises(LockBackendUnavailable):
                waiting.result(SOON)
        finally:
            servers[ALIAS].start()
            connections[ALIAS].close()
        waiting = line.join()
        lease.release()
        assert granted(waiting).release()


@pytest.mark.parametrize("what", ["join", "leave"])
def test_row_of_an_abandoned_wait_keeps_nobody_out(
    what: str, only_woken: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if its process is alive: joining was interrupted, or leaving failed."""
    monkeypatch.setattr(listening, "SWEEPING", 0.1)
    lease, other = acquire(ALIAS), acquire(ALIAS, "waited for as well")
    do = getattr(PostgreSQLStatements, what)

    def fail(self: PostgreSQLStatements, argument: Any) -> None:
        if what == "join":
            do(self, argument)
            raise Interrupted
        raise OperationalError

    with Line() as line:
        waiting = line.join("waited for as well")
        with mock.patch.object(PostgreSQLStatements, what, fail):
            for _ in range(2):  # it is handed to the first one
                with suppress(Interrupted):
                    assert (
                        elsewhere(
                            lambda: acquire_lock("1234collectPayment", timeout=0.01, backend=ALIAS)
                        )
                        is None
                    )
        lease.release()
        until(lambda: waiters() == 1)
        until(lambda: free_for_others(ALIAS))
        other.release()
        assert granted(waiting).release()


@pytest.mark.parametrize("when", ["before", "after"])
def test_joining_is_tried_again_when_the_reply_is_lost(when: str) -> None:
    """Whether or not the server did it: the connection may have been idle, and cut."""
    lease = acquire(ALIAS)
    join, calls = PostgreSQLStatements.join, []

    def fail_once(self: PostgreSQLStatements, parameters: Any) -> Any:
        calls.append(when)
        if len(calls) > 1:
            return join(self, parameters)
        if when == "after":
            join(self, parameters)
        raise OperationalError

    with mock.patch.object(PostgreSQLStatements, "join", fail_once):
        place, _, _ = wait_by_hand()
    assert len(calls) == 2
    assert [place.id] == [*LockWaiter.objects.using(ALIAS).values_list("id", flat=True)]
    store().leave(place, False)
    lease.release()


@pytest.mark.usefixtures("long_offers")
def test_waiter_offered_the_lock_while_it_rejoins_takes_it() -> None:
    """It doesn't wait for its own offer."""
    lease = acquire(ALIAS)
    join = PostgreSQLStatements.join

    def fail_once(self: PostgreSQLStatements, parameters: Any) -> Any:
        answer = join(self, parameters)
        if lease.held:
            lease.release()
            raise OperationalError
        return answer

    with mock.patch.object(PostgreSQLStatements, "join", fail_once):
        place, owner, woken = wait_by_hand()
    assert woken.is_set()
    assert store().acquire("1234collectPayment", owner, 60, "")
    store().leave(place, True)


def test_joining_that_the_server_refuses_is_not_tried_again() -> None:
    """As with a try: the request was not sent, or the table is missing."""
    with mock.patch.object(PostgreSQLStatements, "join", side_effect=ProgrammingError) as join:
        with pytest.raises(LockBackendUnavailable):
            wait_by_hand()
    assert join.call_count == 1
