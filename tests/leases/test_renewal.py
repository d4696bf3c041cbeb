"""Renewal in the background: what it costs, what it survives, and what it never does."""

import gc
import math
import os
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from weakref import ref

import pytest
from django.db import DatabaseError, connections, transaction
from django.test import TestCase
from django.views.debug import ExceptionReporter

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockLost,
    acquire_lock,
    clocks,
    lock_backends,
)
from django_distlock.acquisitions import Request, describe_holder, new_owner
from django_distlock.backends.base import Grant, Renewal
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.backends.database.mysql import MySQLStatements
from django_distlock.backends.database.sqlite import SQLiteStatements
from django_distlock.backends.database.statements import Statements
from django_distlock.background import Background, background
from django_distlock.fields import EPOCH
from django_distlock.flows import current_flow
from django_distlock.models import Lock
from django_distlock.renewal import Renewals
from tests.app.backends import HangingBackend
from tests.support.concurrency import elsewhere, until
from tests.support.databases import committed, on_each_database, on_each_server, pool_of
from tests.support.holders import acquire, free_for_others, take_away
from tests.support.scripted_store import ScriptedBackend

MANY = 10_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what is added to the local clock."""
    added, true = [0.0], clocks.monotonic
    monkeypatch.setattr(clocks, "monotonic", lambda: true() + added[0])
    return added


def renewals_of(*leases: Lease) -> Renewals:
    """Return what renews these leases when the test says so."""
    renewals = Renewals(leases[0].backend)
    for lease in leases:
        renewals.add(lease)
    return renewals


def hold(number: int, alias: str = "default", ttl: float = 60) -> list[Lease]:
    """Acquire so many leases, which nobody renews but the test."""
    return [acquire(alias, f"{alias} {n}", ttl=ttl, renew=False) for n in range(number)]


# What is due


def test_lease_is_renewed_after_a_third_of_its_ttl(
    scripted: ScriptedBackend, clock: list[float]
) -> None:
    """Not before, and then it lasts its ttl from there."""
    [lease] = hold(1)
    renewals = renewals_of(lease)
    clock[0] = 19
    renewals.renew_due()
    assert scripted.calls == ["acquire"]
    clock[0] = 20.1
    renewals.renew_due()
    assert scripted.calls == ["acquire", "renew"]
    assert lease.remaining == pytest.approx(60, abs=1)
    assert renewals.next_due() - clocks.monotonic() == pytest.approx(20, abs=1)


def test_leases_of_different_times_come_to_be_renewed_together(
    scripted: ScriptedBackend, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within two periods all are renewed by one question a period."""
    monkeypatch.setattr(scripted, "acquire", lambda *args: Grant(1, EPOCH, EPOCH))
    leases = []
    for second in range(20):
        clock[0] = second
        leases += [acquire("default", f"acquired at {second}", renew=False)]
    renewals = renewals_of(*leases)
    asked: list[tuple[float, int]] = []

    def renew(claims: Any) -> dict[str, Any]:
        asked.append((clock[0], len(claims)))
        return {claim.owner: Renewal(True, EPOCH) for claim in claims}

    monkeypatch.setattr(scripted, "renew", renew)
    while clock[0] < 120:
        clock[0] += max(0.01, renewals.next_due() - clocks.monotonic())
        renewals.renew_due()
    assert all(lease.held for lease in leases)
    assert [number for when, number in asked if 60 < when < 120] == [20, 20, 20]


def test_lease_that_nobody_refers_to_is_not_renewed(scripted: ScriptedBackend) -> None:
    """It is dropped at the next look, and a warning has told of it."""
    renewals = Renewals("default")

    def acquire_and_end() -> None:
        lock_backends["default"] = scripted
        renewals.add(acquire("default", renew=False))

    with pytest.warns(ResourceWarning, match="'a' was never released"):
        elsewhere(acquire_and_end)
    assert renewals.next_due() == math.inf
    assert len(renewals) == 0


# What it costs


@contextmanager
def counted() -> Iterator[list[str]]:
    """Return the statements that are sent for locks in the block."""
    sent: list[str] = []

    def spy(name: str) -> Any:
        real = getattr(Statements, name)

        def send(statements: Statements, sql: str, parameters: Any) -> Any:
            sent.append(sql)
            return real(statements, sql, parameters)

        return mock.patch.object(Statements, name, send)

    with spy("execute"), spy("fetch"):
        yield sent


@committed
@on_each_server
def test_ten_thousand_leases_cost_few_round_trips_and_little_memory(
    alias: str, clock: list[float]
) -> None:
    """At most 20 a period, and less than 2 KB each (design, 7)."""
    acquire(alias, "warm up").release()
    renewals = Renewals(alias)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        leases = [acquired(alias, number) for number in range(MANY)]
        for lease in leases:
            renewals.add(lease)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / MANY < 2048
    write(leases)
    clock[0] = 3000
    with counted() as sent:
        renewals.renew_due()
        assert renewals.next_due() - clocks.monotonic() > 600
    assert len(sent) <= 20
    assert min(lease.remaining for lease in leases) > 3000


@committed
@pytest.mark.once
@pytest.mark.needs("postgresql")
def test_renewal_of_many_is_planned_for_the_table_as_it_is() -> None:
    """PostgreSQL keeps a prepared plan as the table grows: it would compare each with each."""
    leases = hold(2, "postgresql")
    close_own_connections()
    assert len(lock_backends["postgresql"].renew(leases)) == 2
    assert not renewal_is_prepared()
    leases[0].renew()  # compares one lease with each row, at worst
    assert renewal_is_prepared()


def renewal_is_prepared() -> bool:
    """Tell whether PostgreSQL keeps a plan for it in the first of our own sessions."""
    session = pool_of("postgresql").all[0].statements(clocks.monotonic() + 60)
    prepared = session.fetch("SELECT statement FROM pg_prepared_statements", {})
    return any("jsonb_to_recordset" in sql for (sql,) in prepared)


def acquired(alias: str, number: int) -> Lease:
    """Return a lease of an hour as this thread would have it; its row is written with others'."""
    request = Request(
        backend=alias,
        semaphore=f"{number}collectPayment",
        owner=new_owner(),
        ttl=3600,
        holder=describe_holder(),
        renewed=False,
        caller=None,
        min_hold=0,
        max_hold=math.inf,
    )
    now = datetime.now(UTC)
    grant = Grant(number, now, now + timedelta(hours=1))
    lease = Lease(request, grant, clocks.monotonic(), current_flow())
    current_flow().remember(lease)
    current_flow().keep(lease)
    return lease


def write(leases: list[Lease]) -> None:
    """Write the rows of these leases."""
    Lock.objects.using(leases[0].backend).bulk_create(
        Lock(semaphore=each.semaphore, owner=each.owner, expires_at=each.expires_at)
        for each in leases
    )


@contextmanager
def locked_row(alias: str, semaphore: str) -> Iterator[None]:
    """Let another transaction have the row locked in the block."""
    other = connections[alias].copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM django_distlock_lock WHERE semaphore = %s FOR UPDATE",
                [semaphore.encode() if alias == "mariadb" else semaphore],
            )
        yield
    finally:
        other.close()


@committed
@on_each_server
def test_locked_row_stalls_no_other_renewal(
    alias: str, clock: list[float], lost: dict[Lease, str], caplog: pytest.LogCaptureFixture
) -> None:
    """It is skipped, and tried again soon; nobody takes it for lost."""
    leases = hold(1_000, alias)
    renewals = renewals_of(*leases)
    ends = [lease.expires_at for lease in leases]
    with locked_row(alias, f"{alias} 500"):
        clock[0] = 30
        renewals.renew_due()
        moved = [lease.expires_at != end for lease, end in zip(leases, ends, strict=True)]
        assert moved == [True] * 500 + [False] + [True] * 499
        assert f"'{alias} 500', of {leases[500].holder}, and 0 others could not" in caplog.text
        assert 0 < leases[500].due - clocks.monotonic() < 5
        assert leases[500].held
        with pytest.raises(LockBackendUnavailable, match="has its row locked"):
            leases[500].renew()
    clock[0] = 40
    renewals.renew_due()
    assert leases[500].expires_at != ends[500]
    assert not lost


# What it is told


def test_failed_renewal_is_tried_again_until_the_ttl_has_passed(
    scripted: ScriptedBackend, clock: list[float], lost: dict[Lease, str]
) -> None:
    """Unknown is not lost; and once it is lost, it stays so, whatever the store says later."""
    [lease] = hold(1)
    renewals = renewals_of(lease)
    scripted.answer("renew", *[LockBackendUnavailable("down")] * 1_000)
    while clock[0] < 59:
        clock[0] += renewals.next_due() - clocks.monotonic() + 0.001
        renewals.renew_due()
        if clock[0] < 59:
            assert lease.held
            assert not lost
    assert 10 <= scripted.calls.count("renew") <= 20
    clock[0] = 60.1
    assert not lease.held
    scripted.answers.clear()
    renewals.renew_due()
    assert lost == {lease: "its ttl of 60 seconds has passed"}
    assert not lease.held
    renewals.renew_due()
    with pytest.raises(LockLost, match="60 seconds has passed"):
        lease.renew()
    assert lease.release() is False
    assert len(lost) == 1


def test_renewal_after_an_outage_holds_on(
    scripted: ScriptedBackend, clock: list[float], lost: dict[Lease, str]
) -> None:
    """Unknown, then held."""
    [lease] = hold(1)
    renewals = renewals_of(lease)
    scripted.answer("renew", ValueError("not even an error of ours"))
    clock[0] = 21
    renewals.renew_due()
    assert lease.remaining < 40
    clock[0] = 25
    renewals.renew_due()
    assert lease.remaining > 59
    assert not lost


def test_answer_that_comes_too_late_does_not_revive(
    scripted: ScriptedBackend,
    clock: list[float],
    lost: dict[Lease, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who asked meanwhile was told that it had expired."""
    [lease] = hold(1)
    renewals = renewals_of(lease)
    renew = scripted.renew

    def slowly(claims: Any) -> Any:
        clock[0] = 61
        return renew(claims)

    monkeypatch.setattr(scripted, "renew", slowly)
    clock[0] = 30
    renewals.renew_due()
    assert not lease.held
    renewals.renew_due()
    assert list(lost) == [lease]


def test_explicit_renewal_whose_answer_comes_too_late_is_a_loss(
    scripted: ScriptedBackend,
    clock: list[float],
    lost: dict[Lease, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Likewise."""
    [lease] = hold(1)
    renew = scripted.renew

    def slowly(claims: Any) -> Any:
        clock[0] = 61
        return renew(claims)

    monkeypatch.setattr(scripted, "renew", slowly)
    with pytest.raises(LockLost):
        lease.renew()
    assert list(lost) == [lease]


@committed
@on_each_database
def test_lease_that_was_taken_away_is_lost_at_the_next_renewal(
    alias: str, clock: list[float], lost: dict[Lease, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Told once, with the reason; the others are renewed."""
    taken, *others = leases = hold(3, alias)
    renewals = renewals_of(*leases)
    take_away(taken)
    clock[0] = 30
    renewals.renew_due()
    [(lease, reason)] = lost.items()
    assert lease is taken
    assert "its store has it no more" in reason
    assert all(other.remaining > 50 for other in others)
    assert f"{taken}, of {taken.holder}, was lost: {reason}." in caplog.text
    assert str(taken.owner) not in caplog.text
    with pytest.raises(LockLost, match="was lost: its store has it no more"):
        taken.check()
    assert taken.release() is False


def test_lease_that_is_released_while_it_is_renewed_is_not_lost(
    scripted: ScriptedBackend,
    clock: list[float],
    lost: dict[Lease, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store has it no more since it was given back."""
    lease = acquire("default", ttl=60)
    renewals = background("default").renewals
    renew = scripted.renew

    def after_the_release(claims: Any) -> Any:
        assert lease.release() is True
        return renew(claims)

    monkeypatch.setattr(scripted, "renew", after_the_release)
    clock[0] = 30
    renewals.renew_due()
    assert not lost
    assert lease.released


def test_release_of_a_lease_that_was_not_renewed_is_no_trouble(
    scripted: ScriptedBackend,
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may be the release that had the row locked."""
    lease = acquire("default", ttl=60)

    def after_the_release(claims: Any) -> Any:
        assert lease.release() is True
        return {lease.owner: Renewal(False, lease.expires_at)}

    monkeypatch.setattr(scripted, "renew", after_the_release)
    clock[0] = 30
    background("default").renewals.renew_due()
    assert caplog.text == ""


def test_lease_that_is_being_told_lost_is_not_released(
    scripted: ScriptedBackend, lost: dict[Lease, str]
) -> None:
    """Who settles it first has the last word."""
    lease = acquire("default", ttl=60)
    assert lease.settle()
    assert not lease.held
    assert "is being released, or lost" in repr(lease)
    assert lease.release() is False
    assert scripted.calls == ["acquire"]
    lease.tell_lost()
    assert list(lost) == [lease]


def test_failed_release_ends_the_renewal(scripted: ScriptedBackend) -> None:
    """It can be tried again as long as the lease lasts, which nobody may do."""
    lease = acquire("default", ttl=60)
    scripted.answer("release", LockBackendUnavailable("down"))
    with pytest.raises(LockBackendUnavailable):
        lease.release()
    assert ref(lease) not in background("default").renewals._leases
    assert lease.release() is True
    assert ref(lease) not in background("default").renewals._leases


@committed
@on_each_server
def test_end_that_somebody_else_wrote_is_no_renewal(alias: str, clock: list[float]) -> None:
    """A row that is skipped may have an end that this lease never heard of."""
    lease = acquire(alias, ttl=60, renew=False)
    lock_backends[alias].renew([lease])  # whose answer was lost, say
    deadline = lease.remaining + clocks.monotonic()
    clock[0] = 20
    with locked_row(alias, "a"):
        renewals_of(lease).renew_due()
        with pytest.raises(LockBackendUnavailable):
            lease.renew()
    assert lease.remaining + clocks.monotonic() == pytest.approx(deadline, abs=1)


@committed
def test_renewal_that_is_rolled_back_is_none() -> None:
    """On SQLite it is part of the transaction; so `remaining` doesn't count on it."""
    lease = acquire("default", ttl=60, renew=False)
    end, deadline = lease.expires_at, lease.remaining + clocks.monotonic()
    until(lambda: lease.remaining + clocks.monotonic() > 0 and lease.remaining < 59.9)
    with suppress(ZeroDivisionError), transaction.atomic():
        lease.renew()
        raise ZeroDivisionError
    assert lease.expires_at == end
    assert lease.remaining + clocks.monotonic() == pytest.approx(deadline, abs=0.05)


@committed
def test_renewal_spares_a_transaction_that_has_read() -> None:
    """On SQLite it couldn't write any more; when it is urgent the lease comes first."""
    lease = acquire("default", ttl=60, renew=False)
    with transaction.atomic():
        assert lease.is_in_the_way()
        lease._deadline = clocks.monotonic() + 19
        assert not lease.is_in_the_way()
    assert not lease.is_in_the_way()
    lease.release()


@pytest.mark.parametrize("trouble", [SystemExit(1), ["no", "dict"]])
def test_store_that_misbehaves_is_not_asked_all_the_time(
    scripted: ScriptedBackend,
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
    trouble: Any,
) -> None:
    """It is tried again after a while, as after any failure."""
    [lease] = hold(1)
    renewals = renewals_of(lease)

    def misbehave(claims: Any) -> Any:
        if isinstance(trouble, BaseException):
            raise trouble
        return trouble

    monkeypatch.setattr(scripted, "renew", misbehave)
    clock[0] = 30
    with suppress(SystemExit, AttributeError):
        renewals.renew_due()
    assert renewals.next_due() > clocks.monotonic() + 1


def test_lease_that_can_last_no_longer_is_looked_at_when_it_ends(
    scripted: ScriptedBackend, clock: list[float]
) -> None:
    """Whatever failed before."""
    lease = acquire("default", ttl=60, max_hold=70, renew=False)
    renewals = renewals_of(lease)
    clock[0] = 30
    lease.renew()
    assert lease.remaining == pytest.approx(40, abs=1)
    lease.retry(clocks.monotonic())
    assert renewals.next_due() == pytest.approx(clocks.monotonic() + 40, abs=1)


def test_release_and_loss_are_settled_once(
    scripted: ScriptedBackend, lost: dict[Lease, str]
) -> None:
    """Who releases and who renews in two threads don't both tell what became of it."""
    lease = acquire("default", renew=False)
    release = scripted.release

    def renew_meanwhile(claim: Any, keep: float) -> bool:
        released = release(claim, keep)
        with pytest.raises(LockLost, match="is being released"):
            lease.check()
        lease.lose()
        assert lease.release() is False
        return released

    with mock.patch.object(scripted, "release", renew_meanwhile):
        assert lease.release() is True
    assert lease.released
    assert not lease.lost
    assert not lost


def test_renewal_that_finds_nothing_while_it_is_released_is_no_loss(
    scripted: ScriptedBackend, lost: dict[Lease, str]
) -> None:
    """But the lease is not held any more."""
    lease = acquire("default", renew=False)
    renew = scripted.renew

    def after_the_release(claims: Any) -> Any:
        assert lease.release() is True
        return renew(claims)

    with mock.patch.object(scripted, "renew", after_the_release):
        with pytest.raises(LockLost, match="was released"):
            lease.renew()
    assert not lost


@committed
@pytest.mark.parametrize("store", ["default", "orm"])
def test_no_traceback_of_a_renewal_has_the_owner(store: str) -> None:
    """Debug pages and error reports show every frame's variables."""
    check_that_tracebacks_are_clean(store)


@committed
@pytest.mark.needs("postgresql", "mariadb")
@pytest.mark.parametrize("store", ["postgresql", "mariadb", "mysql"])
def test_no_traceback_of_a_renewal_by_a_server_has_the_owner(store: str) -> None:
    """Likewise."""
    check_that_tracebacks_are_clean(store)


def check_that_tracebacks_are_clean(store: str) -> None:
    """Let a renewal fail in the statements, and look through the frames."""
    lease = acquire(store)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise DatabaseError("no such table")

    kinds = (Statements, SQLiteStatements)
    with ExitStack() as broken:
        for kind in kinds:
            for name in ("fetch", "execute"):
                broken.enter_context(mock.patch.object(kind, name, fail))
        broken.enter_context(mock.patch("django_distlock.models.LockQuerySet.update", fail))
        with pytest.raises(LockBackendUnavailable) as caught:
            lease.renew()
    page = ExceptionReporter(None, caught.type, caught.value, caught.tb).get_traceback_html()
    assert "no such table" in page
    assert str(lease.owner) not in page


# The thread


def test_thread_is_there_for_who_needs_it(scripted: ScriptedBackend) -> None:
    """Not for a lease without end, nor for one that is not to be renewed."""
    alone = Background("default")
    with mock.patch("django_distlock.leases.background", return_value=alone):
        for arguments in ({"ttl": None}, {"renew": False}):
            acquire("default", **arguments).release()
            assert alone.thread is None
        lease = acquire("default")
        thread = alone.thread
        assert thread is not None
        assert thread.daemon
        lease.release()
        acquire("default").release()
        assert alone.thread is thread


def test_short_lease_wakes_a_thread_that_would_look_later(scripted: ScriptedBackend) -> None:
    """And a long one doesn't."""
    alone = Background("default")
    with mock.patch("django_distlock.leases.background", return_value=alone):
        first = acquire("default", "a", ttl=60)
        until(lambda: -math.inf < alone._looks_at < math.inf)
        looks_at = alone._looks_at
        assert looks_at == first.due
        first.release()
        second = acquire("default", "a", ttl=90)
        assert alone._looks_at == looks_at
        second.release()
        third = acquire("default", "a", ttl=30)
        until(lambda: alone._looks_at == third.due)
        third.release()


def test_thread_survives_what_a_receiver_does_to_it(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Even sys.exit()."""
    alone = Background("default")
    with mock.patch("django_distlock.leases.background", return_value=alone):
        lease = acquire("default", ttl=60)
        done = threading.Event()
        alone.do(lambda: exit(1))
        alone.do(done.set)
        assert done.wait(60)
        assert alone.thread is not None
        assert alone.thread.is_alive()
        assert "What was left to the background failed" in caplog.text
        lease.release()


def test_thread_that_was_killed_is_replaced(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an error of the logging itself, for instance (peer defect 22)."""
    alone = Background("default")
    with mock.patch("django_distlock.leases.background", return_value=alone):
        first = acquire("default", "a")
        thread = alone.thread
        assert thread is not None
        with (
            mock.patch("django_distlock.background.logger.exception", side_effect=ValueError),
            mock.patch.object(threading, "excepthook"),
        ):
            alone.do(lambda: 1 // 0)
            thread.join(60)
        assert not thread.is_alive()
        first.release()
        second = acquire("default", "a")
        assert alone.thread is not thread
        second.release()


def test_store_that_hangs_costs_no_lease_in_another(settings: Any) -> None:
    """Each store has a thread of its own."""
    path = "tests.app.backends."
    settings.DISTLOCK = {
        "hangs": {"BACKEND": f"{path}HangingBackend"},
        "works": {"BACKEND": f"{path}ModestBackend"},
    }
    HangingBackend.may_go_on.clear()
    try:
        hanging = acquire("hangs", "a", ttl=0.3)
        working = acquire("works", "b", ttl=0.3)
        end = working.acquired_at + timedelta(seconds=1)
        until(lambda: working.expires_at is not None and working.expires_at > end)
        assert working.release() is True
        assert not hanging.held
    finally:
        HangingBackend.may_go_on.set()
    until(lambda: hanging.lost)


class InATestCase(TestCase):
    """The test's own transaction is no other thread's to see."""

    databases = {"default"}

    def test_nothing_is_renewed_in_the_background(self) -> None:
        """And the lease can be renewed by hand."""
        lease = acquire("default")
        assert lease._background is None
        lease.renew()
        assert lease.release() is True


@committed
def test_lease_of_a_transaction_that_sqlite_will_commit_is_renewed() -> None:
    """What other databases would not see until then, it waits for."""
    with transaction.atomic():
        assert lock_backends["default"].can_renew()


@committed
@pytest.mark.needs("postgresql")
def test_lease_of_a_transaction_that_others_do_not_see_is_not_renewed() -> None:
    """It would be taken for lost."""
    with transaction.atomic(using="postgresql"):
        assert not lock_backends["orm_postgresql"].can_renew()
    assert lock_backends["orm_postgresql"].can_renew()


@committed
@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("store", ["mariadb", "mysql"])
def test_database_that_can_not_skip_locked_rows_renews_one_by_one(store: str) -> None:
    """MariaDB before 10.6."""
    close_own_connections()
    features = type(connections["mariadb"].features)
    with mock.patch.object(features, "has_select_for_update_skip_locked", False):
        leases = [acquire(store, name) for name in "abc"]
        taken, *others = leases
        take_away(taken)
        ends = lock_backends[store].renew(leases)
        close_own_connections()
    assert ends.keys() == {lease.owner for lease in others}
    for lease in others:
        renewed, end = ends[lease.owner]
        assert renewed
        assert end is not None
        assert lease.expires_at is not None
        assert end > lease.expires_at


@committed
@pytest.mark.needs("mariadb")
def test_deadlock_in_the_midst_of_a_renewal_is_tried_again() -> None:
    """MySQL's way takes several statements, which are undone as one."""
    from MySQLdb import OperationalError

    lease = acquire("mysql")
    end = lease.expires_at
    errors = [OperationalError(1213, "Deadlock found")]
    execute = MySQLStatements.execute

    def fail_once(statements: MySQLStatements, sql: str, parameters: Any) -> int:
        if errors and sql.strip().startswith("UPDATE"):
            raise errors.pop()
        return execute(statements, sql, parameters)

    with mock.patch.object(MySQLStatements, "execute", fail_once):
        lease.renew()
    assert not errors
    assert lease.expires_at != end


@pytest.mark.needs("mariadb")
@pytest.mark.django_db(databases=["mariadb"])
def test_renewal_in_a_testcase_leaves_its_transaction_alone() -> None:
    """MySQL would commit it at the beginning of another."""
    lease = acquire("mysql")
    end = lease.expires_at
    lease.renew()
    assert lease.expires_at != end
    transaction.set_rollback(False, using="mariadb")  # an error if there were none
    assert lease.release()


def test_uwsgi_without_threads_is_told(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its workers never run a thread of Python's unless they are told to."""
    uwsgi = mock.Mock(opt={"http": b":8000"})
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    alone = Background("default")
    alone.expect("a")
    alone.over("a")
    assert "uWSGI needs --enable-threads" in caplog.text
    caplog.clear()
    uwsgi.opt["enable-threads"] = True
    other = Background("default")
    other.expect("a")
    other.over("a")
    assert caplog.text == ""


# Forks


@committed
@on_each_database
def test_forked_child_leaves_its_parents_leases_alone(alias: str, lost: dict[Lease, str]) -> None:
    """It can't use them, and has no thread that does; its own it renews."""
    lease = acquire(alias, ttl=60)
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        try:
            told: list[Any] = [lease.held, background(alias).thread, lease.release()]
            with pytest.raises(LockLost, match=f"is process {os.getppid()}'s"):
                lease.check()
            connections.close_all()
            own = acquire(alias, "the child's", ttl=0.3)
            first = own.expires_at
            until(lambda: own.expires_at != first)
            told += [own.release(), acquire_lock("a", backend=alias)]
            os.write(writer, repr(told).encode())
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "[False, None, False, True, None]"
    assert not free_for_others(alias)
    assert lease.held
    assert lease.release() is True
    assert not lost


def test_fork_that_calls_no_hooks_is_noticed(scripted: ScriptedBackend) -> None:
    """As uWSGI's is, by default."""
    alone = Background("default")
    alone.expect("the parent's")
    with mock.patch("django_distlock.leases.background", return_value=alone):
        thread, alone._pid = alone.thread, -1
        lease = acquire("default")
        assert alone.thread not in (None, thread)
        assert len(alone.renewals) == 1
        lease.release()
