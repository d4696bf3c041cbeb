"""Waiting on PostgreSQL: in the order of joining, woken by the release, whoever dies meanwhile."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError, ProgrammingError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
    lock_backends,
    queues,
)
from django_distlock.acquisitions import new_owner
from django_distlock.backends.database import DatabaseBackend, listening, places, postgresql
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.orm import ORMStatements
from django_distlock.backends.database.places import QueuedPlace
from django_distlock.backends.database.postgresql import PostgreSQLStatements
from django_distlock.backends.database.statements import Statements
from django_distlock.models import Lock, LockWaiter, WaitingProcess
from django_distlock.queues import contended
from tests.stores.database.test_backend import statements_sent
from tests.support.concurrency import Interrupted, elsewhere, run, until
from tests.support.databases import committed, pool_of
from tests.support.holders import acquire, free_for_others, take_away
from tests.support.postgresql import start_pgbouncer
from tests.support.processes import Workers, strike
from tests.support.servers import Server

pytestmark = [committed, pytest.mark.needs("postgresql")]
ALIAS = "postgresql"
SOON = 20.0
"""Seconds within which what should take one at most is done, on a busy machine."""


def backend() -> DatabaseBackend:
    """Return the store."""
    found = lock_backends[ALIAS]
    assert isinstance(found, DatabaseBackend)
    return found


def current_listener() -> listening.Listener:
    """Return this process's listener."""
    return listening.listener(ALIAS, 2, DatabaseBackend.statements, 2)


@pytest.fixture(autouse=True)
def unheard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin and end without a connection to listen on, and with nobody known to wait."""
    monkeypatch.setattr(listening, "PROBING", SOON)
    listening.close_listeners()
    contended.clear()
    yield
    listening.close_listeners()
    for each in listening._listeners.values():
        each._deaf_until = -1
    left = dict(places.places)
    places.places.clear()  # one failure shouldn't be that of all tests
    assert not left


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no waiter try by itself: it has to be woken."""
    for name in ("ALONE", "FIRST_PATIENCE", "PATIENCE"):
        monkeypatch.setattr(places, name, 60.0)


@pytest.fixture
def long_offers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no offer end by itself, and nobody pass for dead, however slow this machine is."""
    for name in ("OFFER", "ALIVE"):
        monkeypatch.setattr(postgresql, name, 60_000_000)
    own.close_own_connections()  # which have the statements
    yield
    own.close_own_connections()


def waiters() -> int:
    """Return how many wait in the table."""
    return LockWaiter.objects.using(ALIAS).count()


def until_waiting(number: int) -> None:
    """Return when so many wait."""
    until(lambda: waiters() == number)


def until_heard() -> None:
    """Return when this process hears of what its waiters are offered."""
    until(lambda: current_listener().hears)


class Line:
    """Threads of this process that wait for the lock, one behind the other."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(10)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *exception: object) -> None:
        self.threads.shutdown()

    def join(self, semaphore: str = "a", **arguments: Any) -> "Future[Lease | None]":
        """Let another thread wait, and return when it does."""
        rows = LockWaiter.objects.using(ALIAS).order_by("id")
        last = rows.last()

        def wait() -> Lease | None:
            try:
                return acquire_lock(semaphore, backend=ALIAS, **{"timeout": 30} | arguments)
            finally:
                connections.close_all()

        waiting = self.threads.submit(wait)
        until(rows.filter(id__gt=last.id if last else 0).exists)
        until_heard()
        return waiting


def granted(waiting: "Future[Lease | None]") -> Lease:
    """Wait for the lease, which has to come soon."""
    lease = waiting.result(SOON)
    assert lease is not None
    return lease


def test_order_is_that_of_joining_across_processes_threads_and_tasks() -> None:
    """Each that is granted has a greater token than the one before."""

    def wait_in_task() -> int | None:
        async def wait() -> int | None:
            async with distributed_lock("a", timeout=30, backend=ALIAS) as lease:
                return lease.token

        return run(wait())

    def wait_in_thread() -> int | None:
        lease = acquire_lock("a", timeout=30, backend=ALIAS)
        assert lease is not None
        lease.release()
        connections.close_all()
        return lease.token

    held = acquire(ALIAS)
    tokens: list[Callable[[], int | None]] = []
    with (
        Workers(1, "stand_in_line", ALIAS, "1") as first,
        ThreadPoolExecutor(4) as threads,
    ):
        until_waiting(1)
        for number, wait in enumerate([wait_in_thread, wait_in_task] * 2, start=2):
            tokens.append(threads.submit(wait).result)
            until_waiting(number)
        with Workers(1, "stand_in_line", ALIAS, "1") as last:
            until_waiting(6)
            held.release()
            ours = [token() for token in tokens]
            order = [*first.results()[0], *ours, *last.results()[0]]
    assert order == sorted(order)
    assert waiters() == 0


@pytest.mark.usefixtures("long_offers")
def test_release_wakes_one_waiter_alone(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first; the others sleep on."""
    offers: list[int] = []
    offer = QueuedPlace.offer

    def count(place: QueuedPlace) -> None:
        offers.append(place.number)
        offer(place)

    monkeypatch.setattr(QueuedPlace, "offer", count)
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = [line.join() for _ in range(5)]
        for number, each in enumerate(waiting, start=1):
            lease.release()
            lease = granted(each)
            assert len(offers) == number
            assert waiters() == 5 - number
        assert offers == sorted(offers)
        lease.release()


def test_uncontended_release_is_one_statement_that_notifies_nobody() -> None:
    """And costs no more than it did."""
    lease = acquire(ALIAS)
    [sent] = statements_sent(ALIAS, lease.release)
    assert "notify" not in sent


PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


def another_waits(seen_at: datetime) -> None:
    """Have somebody wait for the lock whose process was seen then."""
    WaitingProcess.objects.using(ALIAS).create(id=1, seen_at=seen_at)
    LockWaiter.objects.using(ALIAS).create(
        semaphore="a", owner=new_owner(), holder="another", process=1, number=1
    )


def test_newcomer_does_not_overtake_the_living() -> None:
    """Though the lock is free, as it is for a moment after its holder has died."""
    another_waits(FUTURE)
    assert acquire_lock("a", backend=ALIAS) is None
    acquire(ALIAS, "b").release()


def test_newcomer_does_not_wait_for_the_dead() -> None:
    """Nor is the lock handed over to them; they are removed, as it were, in passing."""
    another_waits(PAST)
    acquire(ALIAS).release()
    assert Lock.objects.using(ALIAS).get().owner == ""
    assert waiters() == 0
    assert not WaitingProcess.objects.using(ALIAS).exists()


@pytest.mark.parametrize("sqlstate", ["40001", "08006"])
def test_release_past_the_dead_is_done_though_they_stay(sqlstate: str) -> None:
    """Another removes them at the same time, or the connection is cut."""

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


def test_dead_process_costs_a_second_however_many_waiters_it_had(patient: None) -> None:
    """It was killed before the release: its waiters are thought to live for a moment."""
    lease = acquire(ALIAS)
    with Workers(1, "stand_in_line", ALIAS, "20") as workers, Line() as line:
        until_waiting(20)
        waiting = line.join()
        [process] = workers.processes
        strike(process, signal.SIGKILL)
        assert lease.release()
        assert granted(waiting).release()
        until(lambda: waiters() == 0)


def test_stopped_process_is_passed_over_and_goes_on_later(patient: None) -> None:
    """What it was offered is taken from it again; its waiters get the lock when they can."""
    lease = acquire(ALIAS)
    with Workers(1, "stand_in_line", ALIAS, "20") as workers, Line() as line:
        until_waiting(20)
        [process] = workers.processes
        strike(process, signal.SIGSTOP)
        try:
            waiting = line.join()
            assert lease.release()
            later = granted(waiting)
        finally:
            process.send_signal(signal.SIGCONT)
        assert later.release()
        [tokens] = workers.results()
    assert len(set(tokens)) == 20
    assert min(tokens) > (later.token or 0)


def test_who_is_killed_when_it_is_offered_the_lock_costs_a_second(patient: None) -> None:
    """The offer ends by itself, and the next one gets the lock."""
    lease = acquire(ALIAS)
    with Workers(1, "stand_in_line", ALIAS, "1") as workers, Line() as line:
        until_waiting(1)
        waiting = line.join()
        [process] = workers.processes
        strike(process, signal.SIGSTOP)
        assert lease.release()
        process.send_signal(signal.SIGKILL)
        assert granted(waiting).release()


def test_lock_of_dead_holder_is_handed_on_when_its_ttl_ends(patient: None) -> None:
    """To the first who waits, who is woken then."""
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


def test_min_hold_is_waited_for(patient: None) -> None:
    """The release hands over nothing before that."""
    lease = acquire(ALIAS, min_hold=0.5)
    held = time.monotonic()
    with Line() as line:
        waiting = line.join()
        lease.release()
        assert granted(waiting).release()
        assert time.monotonic() - held >= 0.5


@pytest.mark.parametrize("how", ["by force", "as stale"])
def test_lock_that_is_freed_by_an_operator_is_handed_on(patient: None, how: str) -> None:
    """To the first who waits."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        if how == "by force":
            take_away(lease)
        else:
            Lock.objects.using(ALIAS).update(expires_at=PAST)
            assert len([*backend().clear_stale()]) <= 1
        assert granted(waiting).release()
    lease.release()


def test_lock_that_is_freed_in_a_transaction_is_handed_on_after_it(patient: None) -> None:
    """The transaction has locked its row until then."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        with transaction.atomic(using=ALIAS):
            assert backend().force_release("a", lease.token or 0)
        assert granted(waiting).release()
    lease.release()


def test_stale_locks_can_be_cleared_in_a_transaction() -> None:
    """It has locked their rows, for which nothing waits meanwhile."""
    acquire(ALIAS, renew=False)
    Lock.objects.using(ALIAS).update(expires_at=PAST)
    with transaction.atomic(using=ALIAS):
        assert len([*backend().clear_stale()]) == 1
    acquire(ALIAS).release()


def test_dry_run_offers_nothing() -> None:
    """Though somebody waits for the stale lock."""
    acquire(ALIAS, renew=False)
    Lock.objects.using(ALIAS).update(expires_at=PAST)
    another_waits(FUTURE)
    [before] = Lock.objects.using(ALIAS).values()
    assert len([*backend().clear_stale(dry_run=True)]) == 1
    assert [before] == [*Lock.objects.using(ALIAS).values()]
    assert waiters() == 1


def test_waiter_that_gives_up_leaves_nothing() -> None:
    """When its time is over, and when its task is cancelled."""
    lease = acquire(ALIAS)
    assert elsewhere(lambda: acquire_lock("a", timeout=0.05, backend=ALIAS)) is None
    assert waiters() == 0

    async def wait_and_give_up() -> None:
        waiting = asyncio.create_task(aacquire_lock("a", timeout=30, backend=ALIAS))
        await asyncio.to_thread(elsewhere, lambda: until_waiting(1))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(wait_and_give_up())
    assert waiters() == 0
    lease.release()


def wait_by_hand(semaphore: str = "a") -> tuple[Any, str, threading.Event]:
    """Join the queue, without trying; return the place, the owner, and what is set when woken."""
    woken, owner = threading.Event(), new_owner()
    place = backend().join(semaphore, owner, "by hand", woken.set)
    assert place is not None
    until_heard()
    return place, owner, woken


@pytest.mark.usefixtures("long_offers")
@pytest.mark.parametrize("can_join", [True, False])
def test_task_that_is_cancelled_as_it_joins_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, can_join: bool
) -> None:
    """Its thread joins all the same, if it can, and leaves again."""
    joining, may_go_on = threading.Event(), threading.Event()
    join = QueuedPlace.join

    def join_slowly(self: QueuedPlace) -> bool:
        joined = can_join and join(self)
        joining.set()
        assert may_go_on.wait(30)
        return joined

    async def cancel_as_it_joins() -> None:
        task = asyncio.create_task(aacquire_lock("a", backend=ALIAS, timeout=60))
        assert await asyncio.to_thread(joining.wait, 30)
        task.cancel()
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(QueuedPlace, "join", join_slowly)
    with distributed_lock("a", backend=ALIAS):
        run(cancel_as_it_joins())
        assert waiters() == 0
    assert not places.places


def test_offer_of_no_use_is_handed_on() -> None:
    """Who gives up when it has just been offered the lock passes it to the next."""
    lease = acquire(ALIAS)
    first, owner, woken = wait_by_hand()
    second, other, woken_too = wait_by_hand()
    lease.release()
    assert woken.wait(SOON)
    assert not woken_too.is_set()
    first.leave(granted=False)
    assert Lock.objects.using(ALIAS).get().owner == other
    assert woken_too.wait(SOON)
    assert backend().acquire("a", owner, 60, "") is None
    assert backend().acquire("a", other, 60, "") is not None
    second.leave(granted=True)
    assert waiters() == 0


def test_who_missed_its_offer_waits_on_where_it_was() -> None:
    """Before those who joined later."""
    lease = acquire(ALIAS)
    first, owner, woken = wait_by_hand()
    lease.release()
    assert woken.wait(SOON)
    Lock.objects.using(ALIAS).update(owner="another", expires_at=None)
    second, _, _ = wait_by_hand()
    assert backend().acquire("a", owner, 60, "") is None
    [one, two] = LockWaiter.objects.using(ALIAS).order_by("id")
    assert (one.id, two.id) == (first.id, second.id)
    for place in (first, second):
        place.leave(granted=False)


def test_own_try_is_granted_to_the_first_only() -> None:
    """Nobody offered it, as after a release that overlooked them: it leaves, and has no row."""
    lease = acquire(ALIAS)
    first, owner, _ = wait_by_hand()
    second, other, _ = wait_by_hand()
    rests = threading.Event()

    def rest(listener: listening.Listener, *arguments: Any) -> None:
        listener._due = clocks.monotonic() + SOON
        rests.set()

    with mock.patch.object(listening.Listener, "_tick", rest):
        assert rests.wait(SOON)
        WaitingProcess.objects.using(ALIAS).update(seen_at=FUTURE)
        Lock.objects.using(ALIAS).update(owner="")
        assert backend().acquire("a", other, 60, "") is None
        assert backend().acquire("a", owner, 60, "") is not None
        first.leave(granted=True)
    assert waiters() == 1
    second.leave(granted=False)
    lease.release()


def test_who_joins_when_the_lock_is_free_tries_at_once(patient: None) -> None:
    """It was released between the try and the joining."""
    place, _, woken = wait_by_hand("free")
    assert woken.is_set()
    place.leave(granted=False)
    contended.add(ALIAS, "a")
    lease = acquire(ALIAS, timeout=30)
    assert waiters() == 0
    lease.release()


def test_lost_notification_costs_little(patient: None) -> None:
    """The process notices that its waiter was taken out of the table."""
    current_listener()._hear(0)  # of nobody, which means nothing
    current_listener()._hear(-1)
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        with mock.patch.object(listening.Listener, "_hear"):
            lease.release()
            assert granted(waiting).release()


def test_waiters_whose_rows_are_gone_join_again(patient: None) -> None:
    """As after a crash of the server, or if they were taken for dead."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        LockWaiter.objects.using(ALIAS).all().delete()
        until_waiting(1)
        lease.release()
        assert granted(waiting).release()


def terminate(session: int) -> None:
    """End a session, and return when it has ended."""
    with connections[ALIAS].cursor() as cursor:

        def ended() -> bool:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s", [session]
            )
            return not cursor.fetchall()

        until(ended)


def test_session_that_is_gone_is_replaced(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits goes on waiting, and is woken: as after a restart of the server."""
    sessions: list[int] = []
    listen = PostgreSQLStatements.listen

    def note(self: PostgreSQLStatements, process: int) -> int:
        sessions.append(listen(self, process))
        return sessions[-1]

    monkeypatch.setattr(PostgreSQLStatements, "listen", note)
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        until(lambda: current_listener().hears)
        terminate(sessions[0])
        until(lambda: len(sessions) > 1 and current_listener().hears)
        lease.release()
        assert granted(waiting).release()


def test_waiters_learn_that_the_server_is_down(servers: dict[str, Server]) -> None:
    """And wait as before when it is there again."""
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
def test_row_of_who_waits_no_more_keeps_nobody_out(what: str, patient: None) -> None:
    """Though its process lives: the joining was interrupted, or the leaving failed."""
    lease, other = acquire(ALIAS), acquire(ALIAS, "b")
    do = getattr(PostgreSQLStatements, what)

    def fail(self: PostgreSQLStatements, argument: Any) -> None:
        if what == "join":
            do(self, argument)
            raise Interrupted
        raise OperationalError

    with Line() as line:
        waiting = line.join("b")
        with mock.patch.object(PostgreSQLStatements, what, fail):
            for _ in range(2):  # to the first one it is handed over
                with suppress(Interrupted):
                    assert elsewhere(lambda: acquire_lock("a", timeout=0.01, backend=ALIAS)) is None
        lease.release()
        until(lambda: waiters() == 1)
        until(lambda: free_for_others(ALIAS))
        other.release()
        assert granted(waiting).release()


@pytest.mark.parametrize("when", ["before", "after"])
def test_joining_is_tried_again_when_the_reply_is_lost(when: str) -> None:
    """Whether it was carried out or not: the connection may have been idle, and cut."""
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
    place.leave(granted=False)
    lease.release()


@pytest.mark.usefixtures("long_offers")
def test_who_is_offered_the_lock_while_it_joins_again_takes_it() -> None:
    """It doesn't wait for itself."""
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
    assert backend().acquire("a", owner, 60, "") is not None
    place.leave(granted=True)


def test_joining_that_the_server_refuses_is_not_tried_again() -> None:
    """As a try isn't: it was not sent, or there is no such table."""
    with mock.patch.object(PostgreSQLStatements, "join", side_effect=ProgrammingError) as join:
        with pytest.raises(LockBackendUnavailable):
            wait_by_hand()
    assert join.call_count == 1


def test_nobody_waits_until_the_process_hears() -> None:
    """Who waits for less is told so in time, and who is offered the lock finds that by itself."""
    asked = threading.Event()
    in_time: list[bool] = []

    def probe(self: listening.Listener, *arguments: Any) -> None:
        in_time.append(asked.wait(SOON))

    def wait() -> Lease | None:
        return acquire_lock("a", timeout=30, backend=ALIAS)

    lease = acquire(ALIAS)
    with mock.patch.object(listening.Listener, "_probe", probe):
        assert elsewhere(lambda: acquire_lock("a", timeout=0.01, backend=ALIAS)) is None
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(elsewhere, wait)
            until_waiting(1)
            lease.release()
            assert granted(waiting).release()
        asked.set()
        until(lambda: bool(in_time))
    assert in_time == [True]


def test_late_probe_is_repeated_soon_and_then_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until it is a few minutes: one process may have been busy, or be behind a pooler."""
    listener = listening.Listener(ALIAS, 2, DatabaseBackend.statements, 2)
    now = 1000.0
    monkeypatch.setattr(clocks, "monotonic", lambda: now)
    assert [listener.be_deaf() for _ in range(5)] == [1, 5, 30, 300, 300]
    assert not listener.may_hear()
    now += 300
    assert listener.may_hear()
    assert listener.be_deaf() == 300
    now += 601
    assert listener.be_deaf() == 1


def test_who_waits_is_woken_after_a_late_probe(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process hears though it was thought not to."""
    monkeypatch.setattr(listening, "DEAF", (0.01,))
    probe, late = listening.Listener._probe, [True]

    def be_late(self: listening.Listener, *arguments: Any) -> None:
        if late:
            late.pop()
            raise listening.Deaf
        probe(self, *arguments)

    lease = acquire(ALIAS)
    with mock.patch.object(listening.Listener, "_probe", be_late), Line() as line:
        waiting = line.join()
        assert not late
        lease.release()
        assert granted(waiting).release()


def test_probe_over_a_connection_that_was_cut_has_it_replaced() -> None:
    """It is tried again with another one."""
    [first, _] = pool_of(ALIAS).all
    [(session,)] = first.statements(clocks.monotonic() + 60).fetch("SELECT pg_backend_pid()", {})
    terminate(session)
    selector: Any = mock.Mock()
    driver: Any = connections[ALIAS]
    with pytest.raises(driver.Database.OperationalError):
        current_listener()._probe(selector, None)
    assert first.statements(clocks.monotonic() + 60).fetch("SELECT 1", {}) == [(1,)]


@contextmanager
def behind_pgbouncer(**settings: Any) -> Iterator[None]:
    """Have a pooler in transaction mode in between."""
    entry = connections.settings[ALIAS]
    with start_pgbouncer(entry) as pooler:
        place = {key: pooler.settings[key] for key in ("HOST", "PORT")}
        with mock.patch.dict(entry, place | settings):
            own.close_own_connections()
            connections[ALIAS].close()
            try:
                yield
            finally:
                listening.close_listeners()
                own.close_own_connections()
                connections[ALIAS].close()


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("told", [True, False])
def test_behind_a_pooler_waiters_try_again_and_again(
    told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was told by DISABLE_SERVER_SIDE_CURSORS, or notices that it hears nothing."""
    monkeypatch.setattr(listening, "PROBING", 0.2)
    monkeypatch.setattr(listening, "DEAF", (60.0,))
    can = mock.patch.object(own, "_can_prepare", return_value=False)
    late = mock.patch.object(listening.Listener, "_tick")  # it would notice that, too
    with can, late, behind_pgbouncer(DISABLE_SERVER_SIDE_CURSORS=told):
        lease = acquire(ALIAS)
        place = backend().join("a", new_owner(), "", lambda: None)
        assert (place is None) is told
        if place is not None:
            until(lambda: not backend().queues_all)
            place.leave(granted=False)
        assert not backend().queues_all
        assert elsewhere(lambda: acquire_lock("a", timeout=0.1, backend=ALIAS)) is None
        assert waiters() == 0
        lease.release()


def test_session_that_is_another_one_is_not_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooler may take its time to hand out another session."""
    monkeypatch.setattr(listening, "DEAF", (60.0,))
    rows = [(0, None, None, None)]
    with mock.patch.object(PostgreSQLStatements, "vouch", return_value=rows):
        place = backend().join("a", new_owner(), "", lambda: None)
        assert place is not None
        until(lambda: not current_listener().may_hear())
    assert not backend().queues_all
    place.leave(granted=False)


class OtherStatements(DatabaseBackend):
    """A site's own way on PostgreSQL, which knows no waiters."""

    @classmethod
    def statements(cls, connection: BaseDatabaseWrapper) -> Statements:
        return ORMStatements(connection, Lock._meta.db_table)


def test_other_statements_know_no_waiters() -> None:
    """They are asked again and again."""
    store = OtherStatements(ALIAS, using=ALIAS)
    assert store.queues_all
    assert store.join("a", new_owner(), "", lambda: None) is None
    assert not store.queues_all


def test_other_statements_force_a_release() -> None:
    """Which hands nothing on."""
    store = OtherStatements(ALIAS, using=ALIAS)
    grant = store.acquire("a", new_owner(), 60, "")
    assert grant is not None
    assert store.force_release("a", grant.token or 0)


def test_without_threads_nobody_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under uWSGI without --enable-threads, or when there are too many."""
    monkeypatch.setattr(listening, "lacks_threads", lambda: True)
    assert backend().join("a", new_owner(), "", lambda: None) is None
    monkeypatch.setattr(listening, "lacks_threads", lambda: False)
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError):
        assert backend().join("a", new_owner(), "", lambda: None) is None
    assert waiters() == 0


def test_connection_is_closed_when_nobody_has_waited_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And opened again for the next waiter, who wakes the thread if that sleeps."""
    monkeypatch.setattr(listening, "DROWSY", 0.0)
    lease = acquire(ALIAS)
    first, _, _ = wait_by_hand()
    first.leave(granted=False)
    with Line() as line:
        until(lambda: current_listener()._sleeps)
        second = line.join()
        lease.release()
        granted(second).release()
        monkeypatch.setattr(listening, "IDLE", 0.0)
        current_listener()._poke()
        until(lambda: current_listener()._thread is None)
        until(lambda: not WaitingProcess.objects.using(ALIAS).exists())
        monkeypatch.setattr(listening, "IDLE", 60.0)
        lease = acquire(ALIAS)
        third = line.join()
        lease.release()
        granted(third).release()


def test_connection_is_closed_before_a_test_database_is_dropped() -> None:
    """What Django does first to drop one is to connect to none."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        with connections[ALIAS]._nodb_cursor():
            assert not current_listener().hears
        lease.release()
        granted(waiting).release()


def test_forked_child_has_a_listener_of_its_own() -> None:
    """And the parent's waiters are woken as before."""
    lease = acquire(ALIAS)
    with Line() as line:
        waiting = line.join()
        heard = current_listener()
        if not (pid := os.fork()):
            status = 1
            try:
                connections[ALIAS].connection = None  # the parent's
                assert not places.places
                place, _, _ = wait_by_hand("b")
                assert place._listener.process != heard.process
                place.leave(granted=False)
                listening.close_listeners()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        lease.release()
        assert granted(waiting).release()


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that are lost are never released."""
    for module in (places, queues):
        monkeypatch.setattr(module, "MANY", 1)
    for name in "ab":
        places.remember(name)
        contended.add(ALIAS, name)
    assert not places.had_to_wait("a")
    assert places.had_to_wait("b")
    assert not contended.has(ALIAS, "a")
    assert contended.has(ALIAS, "b")


def test_errors_of_the_listener_are_told_from_locked_rows() -> None:
    """Those are tried again at the next time."""

    class Locked(Exception):
        sqlstate = "55P03"

    def fail(error: Exception) -> None:
        raise error

    current_listener()._try(lambda: fail(Locked()))
    with pytest.raises(ZeroDivisionError):
        current_listener()._try(lambda: fail(ZeroDivisionError()))


def test_tables_have_readable_rows() -> None:
    """For whoever looks at them in a shell."""
    assert str(WaitingProcess(id=255)) == "ff"
    assert str(LockWaiter(semaphore="a", holder="me")) == "a, me"
