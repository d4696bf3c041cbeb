"""Who loses a lock in another store doesn't commit, and nobody is told to try kept work again."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import RequestFactory
from django.views import View

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockLost,
    clocks,
    distributed_lock,
    lock_backends,
)
from django_distlock.backends.base import Renewal
from tests.app.models import Counter
from tests.support.concurrency import run, until
from tests.support.databases import committed
from tests.support.holders import acquire, due_now, free_for_others, renewed_since, take_away
from tests.support.moved_clock import MovedClock
from tests.support.processes import Workers, strike
from tests.support.redis_stores import ALIAS, locks_at
from tests.support.scripted_store import ScriptedBackend
from tests.support.servers import Server
from tests.support.visits import atomic_requests, visit

pytestmark = committed

DOWN = LockBackendUnavailable("no route")
FORCED = "its store has it no more"

once = pytest.mark.once
REMOTE = [
    pytest.param("redis", marks=[pytest.mark.needs("redis"), once]),
    pytest.param("lock_server", marks=[pytest.mark.needs("lock_server"), once]),
]
"""The same code asks them, whatever the version of Django."""
on_each_store = pytest.mark.parametrize("store", ["memory", *REMOTE])
OFTEN_ENOUGH = 30
on_each_data = pytest.mark.parametrize(
    "using",
    [
        pytest.param("default", id="sqlite"),
        pytest.param("postgresql", marks=pytest.mark.needs("postgresql")),
    ],
)


@pytest.fixture
def atomic(using: str) -> Iterator[None]:
    """Let Django open a transaction on the test's database for each request."""
    with atomic_requests(using):
        yield


LoseLate = Callable[[], Lease]


@pytest.fixture
def lose_late(acquired: list[Lease], moved_clock: MovedClock) -> LoseLate:
    """Return what takes the last lease's lock away, when the store was last asked long ago."""

    def lose() -> Lease:
        lease = acquired[-1]
        moved_clock.outdate(lease)
        take_away(lease)
        assert lease.held  # as far as is known here
        return lease

    return lose


def charging(store: str, using: str, lose_late: LoseLate) -> Callable[..., Any]:
    """Return a locked view that writes, and loses the lock before it answers."""

    @distributed_lock("a", backend=store, http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.using(using).create(value=1)
        lose_late()
        return HttpResponse("charged")

    return charge


# A transaction is rolled back


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
    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert not Counter.objects.using(using).exists()
    assert [FORCED in reason for reason in lost.values()] == [True]
    assert "was lost before the commit on the database" in caplog.text
    assert "what it did is rolled back" in caplog.text
    assert connections[using].get_autocommit()
    assert free_for_others(store)


@pytest.mark.parametrize("store", REMOTE)
def test_lock_that_another_process_took_away_is_missed_before_the_commit(
    store: str, acquired: list[Lease], moved_clock: MovedClock, lost: dict[Lease, str]
) -> None:
    """As an operator's command does."""

    @distributed_lock("a", backend=store, http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.create(value=1)
        [lease] = acquired
        with Workers(1, "force_release", store, "a", str(lease.token)) as workers:
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
        with distributed_lock("a", backend=store), transaction.atomic(using=using):
            Counter.objects.using(using).create(value=1)
            lose_late()
    with pytest.raises(LockLost, match="before the commit"), transaction.atomic(using=using):
        with distributed_lock("a", backend=store) as lease:
            Counter.objects.using(using).create(value=1)
        moved_clock.outdate(lease)
        take_away(lease)
    assert not Counter.objects.using(using).exists()
    assert free_for_others(store)


@once
@pytest.mark.needs("memcached")
def test_lock_that_its_store_forgot_is_missed_before_the_commit(
    moved_clock: MovedClock, lost: dict[Lease, str]
) -> None:
    """Memcached has no operators, but can be flushed."""
    store: Any = lock_backends["memcached"]
    with pytest.raises(LockLost, match="before the commit"):
        with distributed_lock("a", backend="memcached") as lease, transaction.atomic():
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
        @distributed_lock("a", backend=store, http=True)
        def get(self, request: HttpRequest) -> HttpResponse:
            Counter.objects.create(value=1)
            lose_late()
            return HttpResponse("charged")

    with atomic_requests("default"):
        response = visit(Charge.as_view())
    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert not Counter.objects.exists()
    assert free_for_others(store)


def test_method_that_spoiled_its_transaction_is_not_guarded(
    scripted: ScriptedBackend, acquired: list[Lease], moved_clock: MovedClock
) -> None:
    """Nothing will be committed."""

    class Charge(View):
        @distributed_lock("a", http=True)
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
    """503, whichever it is that was taken away."""

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
    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert not Counter.objects.exists()
    for semaphore in ("outer", "inner"):
        assert acquire(store, semaphore).release()


@pytest.mark.needs("postgresql")
def test_no_database_is_committed_under_a_lock_that_was_taken_away(lose_late: LoseLate) -> None:
    """The first commit of a request's transactions asks."""

    @distributed_lock("a", backend="memory", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        for using in ("default", "postgresql"):
            Counter.objects.using(using).create(value=1)
        lose_late()
        return HttpResponse("charged")

    with atomic_requests("default", "postgresql"):
        assert visit(charge).status_code == 503
    assert not Counter.objects.exists()
    assert not Counter.objects.using("postgresql").exists()


# Work that is kept


@on_each_data
@on_each_store
def test_view_without_a_transaction_answers_though_its_lock_was_taken_away(
    store: str,
    using: str,
    lose_late: LoseLate,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it wrote is there: that is no time to be told to try again."""
    response = visit(charging(store, using, lose_late))
    assert (response.status_code, response.content) == (200, b"charged")
    assert "Retry-After" not in response
    assert Counter.objects.using(using).count() == 1
    assert [FORCED in reason for reason in lost.values()] == [True]
    assert "was lost before its view ended" in caplog.text
    assert free_for_others(store)


@on_each_data
@on_each_store
@pytest.mark.usefixtures("atomic")
def test_view_whose_lock_is_taken_away_after_its_commit_answers(
    store: str,
    using: str,
    acquired: list[Lease],
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client is told what was committed."""

    @distributed_lock("a", backend=store, http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.using(using).create(value=1)
        transaction.on_commit(lambda: take_away(acquired[-1]), using=using)
        return HttpResponse("charged")

    response = visit(charge)
    assert (response.status_code, response.content) == (200, b"charged")
    assert "Retry-After" not in response
    assert Counter.objects.using(using).count() == 1
    assert len(lost) == 1
    assert "was lost before its view ended" in caplog.text


@on_each_store
def test_async_view_answers_though_its_lock_was_taken_away(
    store: str,
    acquired: list[Lease],
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it did in a transaction of its own, in a thread, is kept."""

    @distributed_lock("a", backend=store, http=True)
    async def charge(request: HttpRequest) -> HttpResponse:
        @sync_to_async
        def write() -> None:
            with transaction.atomic():
                Counter.objects.create(value=1)

        await write()
        await sync_to_async(take_away)(acquired[-1])
        return HttpResponse("charged")

    async def ask() -> Any:
        return await charge(RequestFactory().get("/"))

    response = run(ask())
    assert (response.status_code, response.content) == (200, b"charged")
    assert "Retry-After" not in response
    assert Counter.objects.count() == 1
    assert len(lost) == 1
    assert "was lost before its view ended" in caplog.text


@on_each_store
def test_async_view_commits_nothing_under_a_lock_that_was_taken_away(
    store: str, lose_late: LoseLate
) -> None:
    """In a thread that works for it; what it raises is answered, but not with an invitation."""

    @distributed_lock("a", backend=store, http=True)
    async def charge(request: HttpRequest) -> HttpResponse:
        @sync_to_async
        def write() -> None:
            with transaction.atomic():
                Counter.objects.create(value=1)
                lose_late()

        await write()
        return HttpResponse("charged")

    async def ask() -> Any:
        return await charge(RequestFactory().get("/"))

    response = run(ask())
    assert response.status_code == 503
    assert "Retry-After" not in response
    assert not Counter.objects.exists()


def test_streaming_view_answers_though_its_lock_was_taken_away(
    lose_late: LoseLate, lost: dict[Lease, str]
) -> None:
    """As any view does."""

    @distributed_lock("a", backend="memory", http=True)
    def charge(request: HttpRequest) -> StreamingHttpResponse:
        Counter.objects.create(value=1)
        lose_late()
        return StreamingHttpResponse(iter([b"charged"]))

    response = visit(charge)
    assert (response.status_code, response.getvalue()) == (200, b"charged")
    response.close()
    assert Counter.objects.count() == 1
    assert len(lost) == 1


def test_expired_lease_is_told_though_the_store_is_down(
    scripted: ScriptedBackend,
    acquired: list[Lease],
    moved_clock: MovedClock,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The view's answer is the view's."""

    @distributed_lock("a", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        scripted.answer("release", DOWN)
        moved_clock.expire(acquired[-1])
        return HttpResponse("charged")

    assert visit(charge).content == b"charged"
    assert len(lost) == 1
    assert "was lost before its view ended" in caplog.text


def test_lock_without_end_that_can_not_be_released_leaves_the_views_answer(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator has to see to it, not the client."""

    @distributed_lock("a", http=True, ttl=None)
    def charge(request: HttpRequest) -> HttpResponse:
        scripted.answer("release", DOWN)
        return HttpResponse("charged")

    assert visit(charge).content == b"charged"
    assert "it ends only by its store's force_release()" in caplog.text


def test_view_that_is_to_raise_raises_though_its_work_is_kept(lose_late: LoseLate) -> None:
    """http=False: its caller is to know."""

    @distributed_lock("a", backend="memory", http=False)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.create(value=1)
        lose_late()
        return HttpResponse("charged")

    with pytest.raises(LockLost):
        visit(charge)
    assert Counter.objects.count() == 1


@once
@on_each_store
def test_answer_says_what_became_of_the_work_whenever_the_lock_is_taken_away(
    store: str, acquired: list[Lease], moved_clock: MovedClock
) -> None:
    """An operator takes it away at random moments: before the commit, within it, and after it."""
    over = threading.Event()

    def take_away_now_and_then() -> None:
        backend = lock_backends[store]
        while not over.wait(random.uniform(0, 0.004)):
            for lock in backend.held("a"):
                backend.force_release("a", lock.token or 0)

    @distributed_lock("a", backend=store, http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.create(value=number)
        moved_clock.outdate(acquired.pop())
        time.sleep(random.uniform(0, 0.004))  # so that the moments differ
        return HttpResponse("charged")

    answers: dict[int, list[Any]] = {200: [], 503: []}
    number, said = 0, []
    with atomic_requests("default"), ThreadPoolExecutor(1) as operator:
        taking = operator.submit(take_away_now_and_then)
        try:
            while min(len(each) for each in answers.values()) < OFTEN_ENOUGH:
                number += 1
                answer = visit(charge)
                answers[answer.status_code].append(answer)
                if answer.status_code == 200:
                    said.append(number)
        finally:
            over.set()
    taking.result()
    assert [each.value for each in Counter.objects.order_by("value")] == said
    assert all(answer["Retry-After"] == "1" for answer in answers[503])


# The body's own exception


@pytest.mark.parametrize("is_atomic", [True, False])
def test_view_that_raises_for_a_lost_lock_invites_nobody_if_it_has_committed(
    is_atomic: bool, lose_late: LoseLate, caplog: pytest.LogCaptureFixture
) -> None:
    """What it committed before is kept, whatever is undone."""

    @distributed_lock("a", backend="memory", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        with transaction.atomic(using="locks"):
            Counter.objects.using("locks").create(value=1)
        Counter.objects.create(value=2)
        lose_late()
        with transaction.atomic(using="locks"):
            Counter.objects.using("locks").create(value=3)
        pytest.fail("It was committed.")

    with atomic_requests(*["default"] * is_atomic):
        response = visit(charge)
    assert response.status_code == 503
    assert "Retry-After" not in response
    assert b"try again" not in response.content
    assert [each.value for each in Counter.objects.using("locks").all()] == [1]
    assert Counter.objects.exists() is not is_atomic
    assert "may have been done in part" in caplog.text


def test_what_fails_after_the_commit_for_a_lost_lock_invites_nobody(acquired: list[Lease]) -> None:
    """Such as what on_commit() calls."""

    @distributed_lock("a", backend="memory", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.create(value=1)
        [lease] = acquired

        def look() -> None:
            take_away(lease)
            lease.renew()

        transaction.on_commit(look)
        return HttpResponse("charged")

    with atomic_requests("default"):
        response = visit(charge)
    assert response.status_code == 503
    assert "Retry-After" not in response
    assert Counter.objects.count() == 1


def test_view_that_raises_for_a_lost_lock_invites_to_try_again_if_all_is_undone(
    lose_late: LoseLate,
) -> None:
    """It looked for itself."""

    @distributed_lock("a", backend="memory", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.create(value=1)
        lose_late().renew()
        pytest.fail("It was renewed.")

    with atomic_requests("default"):
        response = visit(charge)
    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert not Counter.objects.exists()


def test_views_own_exception_wins(lose_late: LoseLate) -> None:
    """As ever."""

    @distributed_lock("a", backend="memory", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        lose_late()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        visit(charge)


# What is asked, and when


@pytest.mark.parametrize("is_slow", [False, True])
def test_store_is_asked_before_a_commit_unless_it_was_a_moment_ago(
    scripted: ScriptedBackend, acquired: list[Lease], moved_clock: MovedClock, is_slow: bool
) -> None:
    """A quick view pays nothing; a slow one has its whole ttl for each commit."""
    moved_clock.stop()

    @distributed_lock("a", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        [lease] = acquired
        for _ in range(3):
            with transaction.atomic():
                Counter.objects.create(value=1)
                if is_slow:
                    moved_clock.outdate(lease)
            assert lease.remaining == pytest.approx(60)
        return HttpResponse("charged")

    assert visit(charge).status_code == 200
    assert scripted.calls == ["acquire", *["renew"] * 3 * is_slow, "release"]
    assert Counter.objects.count() == 3


def test_renewal_in_the_background_counts(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """The store has said that the lease is ours."""
    moved_clock.stop()
    with distributed_lock("a") as lease, transaction.atomic():
        moved_clock.outdate(lease)
        is_renewed = renewed_since([lease])
        due_now([lease])
        until(lambda: is_renewed() and lease.is_confirmed())
    assert scripted.calls == ["acquire", "renew", "release"]


@pytest.mark.parametrize(("ttl", "is_asked"), [(0.09, True), (60, False)])
def test_short_lease_is_renewed_before_a_commit(
    scripted: ScriptedBackend, moved_clock: MovedClock, ttl: float, is_asked: bool
) -> None:
    """When a third of its ttl has passed, what is left may be less than a commit takes."""
    moved_clock.stop()
    with distributed_lock("a", ttl=ttl, renew=False), transaction.atomic():
        moved_clock.advance(0.04)
    assert scripted.calls == ["acquire", *["renew"] * is_asked, "release"]


@pytest.mark.parametrize(
    "answer", [DOWN, LockBackendUnavailable("no reply", reply_lost=True)], ids=["down", "no reply"]
)
def test_store_that_is_down_before_the_commit_is_no_loss(
    scripted: ScriptedBackend,
    moved_clock: MovedClock,
    caplog: pytest.LogCaptureFixture,
    answer: Exception,
) -> None:
    """Nobody else is granted an unexpired lease: unknown is not lost."""
    scripted.answer("renew", answer)
    with distributed_lock("a") as lease, transaction.atomic():
        Counter.objects.create(value=1)
        moved_clock.outdate(lease)
    assert Counter.objects.count() == 1
    assert "could not be renewed before a commit; it is held for" in caplog.text


@once
@pytest.mark.needs("redis")
def test_store_that_hangs_holds_up_a_commit_for_no_longer_than_its_store_timeout(
    redis_server: Server, moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Then it is done: nobody else is granted the lease meanwhile."""
    process = redis_server.executor.process
    assert process is not None
    place = redis_server.settings["PORT"]
    patient, impatient = ({"store_timeout": seconds} for seconds in (30, 0.3))
    with locks_at(place, store=patient), distributed_lock("a", backend=ALIAS) as lease:
        try:
            with locks_at(place, store=impatient), transaction.atomic():
                Counter.objects.create(value=1)
                moved_clock.outdate(lease)
                strike(process, signal.SIGSTOP)
                began = clocks.monotonic()
            took = clocks.monotonic() - began
        finally:
            process.send_signal(signal.SIGCONT)
    assert Counter.objects.count() == 1
    assert 0.2 < took < 20
    assert "could not be renewed before a commit; it is held for" in caplog.text


def test_store_that_can_not_renew_just_now_is_no_loss(
    scripted: ScriptedBackend, moved_clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is locked, say: the lease keeps its end."""
    moved_clock.stop()

    def refuse(leases: Any) -> dict[str, Renewal]:
        scripted.calls.append("renew")
        return {lease.owner: Renewal(False, None) for lease in leases}

    monkeypatch.setattr(scripted, "renew", refuse)
    with distributed_lock("a") as lease, transaction.atomic():
        Counter.objects.create(value=1)
        moved_clock.outdate(lease)
        left = lease.remaining
    assert Counter.objects.count() == 1
    assert lease.remaining == left
    assert scripted.calls == ["acquire", "renew", "release"]


def test_lease_that_expires_while_its_store_is_asked_is_lost(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """By the time of the commit somebody else may have it."""
    with pytest.raises(LockLost, match="before the commit"):
        with distributed_lock("a") as lease, transaction.atomic():
            Counter.objects.create(value=1)
            moved_clock.outdate(lease)

            def expire() -> None:
                moved_clock.expire(lease)
                raise DOWN

            scripted.answer("renew", expire)
    assert not Counter.objects.exists()


def test_max_hold_is_not_exceeded_by_a_commit(moved_clock: MovedClock) -> None:
    """The renewal before it is for what is left."""
    moved_clock.stop()
    with distributed_lock("a", backend="memory", max_hold=5) as lease:
        with transaction.atomic():
            moved_clock.outdate(lease)
            left = lease.remaining
        assert lease.is_confirmed()
        assert lease.remaining == left


def test_what_max_hold_leaves_is_never_too_little_to_be_asked_for(moved_clock: MovedClock) -> None:
    """Each store has a shortest ttl; the lease ends when it is to end, whatever is asked for."""
    moved_clock.stop()
    with distributed_lock("a", backend="memory", max_hold=5) as lease:
        end = clocks.monotonic() + lease.remaining
        assert lease.claim(end - 0.0001).ttl == 0.001
        assert lease.claim(end + 1).ttl == 0.001


def test_unlimited_lease_is_asked_for(
    lose_late: LoseLate, moved_clock: MovedClock, lost: dict[Lease, str]
) -> None:
    """It has no end, but operators."""
    with distributed_lock("a", backend="memory", ttl=None) as lease, transaction.atomic():
        Counter.objects.create(value=1)
        moved_clock.outdate(lease)
    with pytest.raises(LockLost), distributed_lock("a", backend="memory", ttl=None):
        with transaction.atomic():
            Counter.objects.create(value=1)
            lose_late()
    assert Counter.objects.count() == 1
    assert len(lost) == 1
