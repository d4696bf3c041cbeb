"""Who loses a lock in another store doesn't commit, and nobody is told to try kept work again."""

import random
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

from django_distlock import Lease, LockBackendUnavailable, LockLost, distributed_lock, lock_backends
from tests.app.models import Counter
from tests.support.concurrency import run
from tests.support.databases import committed
from tests.support.holders import acquire, free_for_others, take_away
from tests.support.moved_clock import MovedClock
from tests.support.processes import Workers
from tests.support.scripted_store import ScriptedBackend
from tests.support.visits import SOON, atomic_requests, visit

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

    @distributed_lock("1234collectPayment", backend=store, http=True)
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
    assert response.status_code == 503
    assert response["Retry-After"] in SOON
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
    assert response.status_code == 503
    assert response["Retry-After"] in SOON
    assert not Counter.objects.exists()
    for semaphore in ("outer", "inner"):
        assert acquire(store, semaphore).release()


@pytest.mark.needs("postgresql")
def test_no_database_is_committed_under_a_lock_that_was_taken_away(lose_late: LoseLate) -> None:
    """The first commit of a request's transactions asks."""

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

    @distributed_lock("1234collectPayment", backend=store, http=True)
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

    @distributed_lock("1234collectPayment", backend=store, http=True)
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
    store: str, moved_clock: MovedClock
) -> None:
    """In a thread that works for it; what it raises is answered, but not with an invitation."""

    @distributed_lock("1234collectPayment", backend=store, http=True)
    async def charge(request: HttpRequest) -> HttpResponse:
        @sync_to_async
        def write() -> str:
            with transaction.atomic():
                Counter.objects.create(value=1)
                moved_clock.outdate(lease)
                take_away(lease)
                return "charged"

        # No signal's receiver tells of the lease: for those, the store would be asked in a thread.
        async with distributed_lock("1234collectPayment", backend=store, reentrant=True) as lease:
            pass
        return HttpResponse(await write())

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

    @distributed_lock("1234collectPayment", backend="memory", http=True)
    def charge(request: HttpRequest) -> StreamingHttpResponse:
        Counter.objects.create(value=1)
        lose_late()
        return StreamingHttpResponse(iter([b"charged"]))

    response = visit(charge)
    assert (response.status_code, response.getvalue()) == (200, b"charged")
    response.close()
    assert Counter.objects.count() == 1
    assert len(lost) == 1


def test_expired_lease_is_told_and_its_store_is_not_asked(
    scripted: ScriptedBackend,
    acquired: list[Lease],
    moved_clock: MovedClock,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The view's answer is the view's."""

    @distributed_lock("1234collectPayment", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        moved_clock.expire(acquired[-1])
        return HttpResponse("charged")

    assert visit(charge).content == b"charged"
    assert scripted.calls == ["acquire"]
    assert list(lost) == acquired
    assert "was lost before its view ended" in caplog.text


def test_lease_that_expires_while_it_can_not_be_released_leaves_the_views_answer(
    scripted: ScriptedBackend,
    acquired: list[Lease],
    moved_clock: MovedClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its work is kept, as of one that was lost before."""

    def expire() -> None:
        moved_clock.expire(acquired[-1])
        raise DOWN

    @distributed_lock("1234collectPayment", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        scripted.answer("release", expire)
        return HttpResponse("charged")

    assert visit(charge).content == b"charged"
    assert scripted.calls == ["acquire", "release"]
    assert "could not be released; it ends by itself" in caplog.text
    assert "was lost before its view ended" in caplog.text


def test_lock_without_end_that_can_not_be_released_leaves_the_views_answer(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator has to see to it, not the client."""

    @distributed_lock("1234collectPayment", http=True, ttl=None)
    def charge(request: HttpRequest) -> HttpResponse:
        scripted.answer("release", DOWN)
        return HttpResponse("charged")

    assert visit(charge).content == b"charged"
    assert "it ends only by its store's force_release()" in caplog.text


def test_view_that_is_to_raise_raises_though_its_work_is_kept(lose_late: LoseLate) -> None:
    """http=False: its caller is to know."""

    @distributed_lock("1234collectPayment", backend="memory", http=False)
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
            for lock in backend.held("1234collectPayment"):
                backend.force_release("1234collectPayment", lock.token or 0)

    @distributed_lock("1234collectPayment", backend=store, http=True)
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
            while min(len(each) for each in answers.values()) < 30:
                number += 1
                answer = visit(charge)
                answers[answer.status_code].append(answer)
                if answer.status_code == 200:
                    said.append(number)
        finally:
            over.set()
    taking.result()
    assert [each.value for each in Counter.objects.order_by("value")] == said
    assert all(answer["Retry-After"] in SOON for answer in answers[503])


# The body's own exception


@pytest.mark.parametrize("is_atomic", [True, False])
def test_view_that_raises_for_a_lost_lock_invites_nobody_if_it_has_committed(
    is_atomic: bool, lose_late: LoseLate, caplog: pytest.LogCaptureFixture
) -> None:
    """What it committed before is kept, whatever is undone."""

    @distributed_lock("1234collectPayment", backend="memory", http=True)
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

    @distributed_lock("1234collectPayment", backend="memory", http=True)
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

    @distributed_lock("1234collectPayment", backend="memory", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.create(value=1)
        lose_late().renew()
        pytest.fail("It was renewed.")

    with atomic_requests("default"):
        response = visit(charge)
    assert response.status_code == 503
    assert response["Retry-After"] in SOON
    assert not Counter.objects.exists()


def test_views_own_exception_wins(lose_late: LoseLate) -> None:
    """As ever."""

    @distributed_lock("1234collectPayment", backend="memory", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        lose_late()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        visit(charge)
