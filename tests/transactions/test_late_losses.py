"""A holder whose lock was force-released late does not commit."""

from typing import Any

import pytest
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views import View

from django_distlock import Lease, LockLost, distributed_lock, lock_backends
from tests.app.models import Counter
from tests.support.databases import committed
from tests.support.holders import acquire, free_for_others, renew_now, take_away
from tests.support.late_losses import (
    FORCED,
    REMOTE,
    LoseLate,
    charging,
    on_each_data,
    on_each_store,
    once,
)
from tests.support.moved_clock import MovedClock
from tests.support.processes import Workers
from tests.support.scripted_store import ScriptedBackend
from tests.support.visits import SOON, atomic_requests, visit

pytestmark = committed


@on_each_data
@on_each_store
@pytest.mark.usefixtures("atomic")
def test_view_whose_lock_was_taken_away_is_rolled_back_and_503(
    store: str,
    using: str,
    lose_late: LoseLate,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its store is asked before the commit, though nothing was due for a renewal."""
    response = visit(charging(store, using, lose_late))
    assert response.status_code == 503
    assert response["Retry-After"] in SOON
    assert not Counter.objects.using(using).exists()
    assert [FORCED in reason for reason in lost.values()] == [True]
    assert "was lost before the commit on the database" in caplog.text
    assert "its work is rolled back" in caplog.text
    assert connections[using].get_autocommit()
    assert free_for_others(store)


@pytest.mark.parametrize("store", REMOTE)
def test_lock_that_another_process_took_away_is_missed_before_the_commit(
    store: str, acquired: list[Lease], moved_clock: MovedClock, lost: dict[Lease, str]
) -> None:
    """Like an operator's command."""

    @distributed_lock("1234collectPayment", backend=store, http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.create(value=1)
        [lease] = acquired
        with Workers(1, "force_release", store, "1234collectPayment", str(lease.token)) as workers:
            assert workers.results() == [True]
        moved_clock.outdate(lease)
        return HttpResponse("charged")

    with atomic_requests("default"):
        assert visit(charge).status_code == 503
    assert not Counter.objects.exists()
    assert list(lost) == acquired


@on_each_data
@on_each_store
def test_block_whose_lock_was_taken_away_is_rolled_back(
    store: str, using: str, lose_late: LoseLate, moved_clock: MovedClock
) -> None:
    """Whether the transaction is inside it or around it."""
    with pytest.raises(LockLost, match="before the commit"):
        with distributed_lock("1234collectPayment", backend=store), transaction.atomic(using=using):
            Counter.objects.using(using).create(value=1)
            lose_late()
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=using):
        with distributed_lock("1234collectPayment", backend=store) as lease:
            Counter.objects.using(using).create(value=1)
        moved_clock.outdate(lease)
        take_away(lease)
    assert not Counter.objects.using(using).exists()
    assert free_for_others(store)


@on_each_data
@on_each_store
def test_release_of_a_lease_that_is_known_to_be_lost_prevents_the_commit(
    store: str, using: str
) -> None:
    """It returns False, which callers seldom look at. Later transactions are their own affair."""
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=using):
        lease = acquire(store)
        Counter.objects.using(using).create(value=1)
        take_away(lease)
        renew_now(lease)
        assert lease.lost
        assert not lease.release()
    assert not Counter.objects.using(using).exists()
    with transaction.atomic(using=using):
        Counter.objects.using(using).create(value=2)
        assert not lease.release()
    assert Counter.objects.using(using).get().value == 2


@once
@pytest.mark.needs("memcached")
def test_lock_that_its_store_forgot_is_missed_before_the_commit(
    moved_clock: MovedClock, lost: dict[Lease, str]
) -> None:
    """Memcached has no operators, but can be flushed."""
    store: Any = lock_backends["memcached"]
    with pytest.raises(LockLost, match="before the commit"):
        with (
            distributed_lock("1234collectPayment", backend="memcached") as lease,
            transaction.atomic(),
        ):
            Counter.objects.create(value=1)
            moved_clock.outdate(lease)
            assert store.release(lease)
    assert not Counter.objects.exists()
    assert list(lost) == [lease]


@pytest.mark.parametrize(
    ("store", "using"),
    [
        ("locks", "default"),
        pytest.param("postgresql", "default", marks=pytest.mark.needs("postgresql")),
        pytest.param("default", "postgresql", marks=pytest.mark.needs("postgresql")),
        pytest.param("mariadb", "default", marks=pytest.mark.needs("mariadb")),
    ],
)
def test_lock_in_another_database_is_missed_before_the_commit(
    store: str, using: str, lose_late: LoseLate
) -> None:
    """The guard has no row to lock there."""
    with atomic_requests(using):
        assert visit(charging(store, using, lose_late)).status_code == 503
    assert not Counter.objects.using(using).exists()


@on_each_store
def test_method_whose_lock_was_taken_away_is_rolled_back_and_503(
    store: str, lose_late: LoseLate
) -> None:
    """Django's transaction is around it: the store is asked while the answer can be changed."""

    class Charge(View):
        @distributed_lock("1234collectPayment", backend=store, http=True)
        def get(self, request: HttpRequest) -> HttpResponse:
            Counter.objects.create(value=1)
            lose_late()
            return HttpResponse("charged")

    with atomic_requests("default"):
        response = visit(Charge.as_view())
    assert response.status_code == 503
    assert response["Retry-After"] in SOON
    assert not Counter.objects.exists()
    assert free_for_others(store)


def test_method_that_spoiled_its_transaction_is_not_guarded(
    scripted: ScriptedBackend, acquired: list[Lease], moved_clock: MovedClock
) -> None:
    """Nothing will be committed."""

    class Charge(View):
        @distributed_lock("1234collectPayment", http=True)
        def get(self, request: HttpRequest) -> HttpResponse:
            Counter.objects.create(value=1)
            moved_clock.outdate(acquired[-1])
            transaction.set_rollback(True)
            return HttpResponse("refused")

    with atomic_requests("default"):
        assert visit(Charge.as_view()).content == b"refused"
    assert not Counter.objects.exists()
    assert scripted.calls == ["acquire", "release"]


@on_each_store
@pytest.mark.parametrize("which", ["outer", "inner"])
def test_either_of_two_locks_is_missed_before_the_commit(
    store: str, which: str, acquired: list[Lease], moved_clock: MovedClock
) -> None:
    """503, whichever of the two was force-released."""

    @distributed_lock("outer", backend=store, http=True)
    @distributed_lock("inner", backend=store, http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.create(value=1)
        [lease] = [each for each in acquired if each.semaphore == which]
        moved_clock.outdate(lease)
        take_away(lease)
        return HttpResponse("charged")

    with atomic_requests("default"):
        response = visit(charge)
    assert response.status_code == 503
    assert response["Retry-After"] in SOON
    assert not Counter.objects.exists()
    for semaphore in ("outer", "inner"):
        assert acquire(store, semaphore).release()


@pytest.mark.needs("postgresql")
def test_no_database_is_committed_under_a_lock_that_was_taken_away(lose_late: LoseLate) -> None:
    """The first commit of a request's transactions asks the store."""

    @distributed_lock("1234collectPayment", backend="memory", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        for using in ("default", "postgresql"):
            Counter.objects.using(using).create(value=1)
        lose_late()
        return HttpResponse("charged")

    with atomic_requests("default", "postgresql"):
        assert visit(charge).status_code == 503
    assert not Counter.objects.exists()
    assert not Counter.objects.using("postgresql").exists()
