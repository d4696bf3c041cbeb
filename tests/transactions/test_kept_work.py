"""A view whose work is kept answers normally, and no answer invites a repetition of kept work."""

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import RequestFactory

from django_distlock import Lease, LockLost, distributed_lock
from tests.app.models import Counter
from tests.support.concurrency import run
from tests.support.databases import committed
from tests.support.holders import free_for_others, take_away
from tests.support.late_losses import DOWN, FORCED, LoseLate, charging, on_each_data, on_each_store
from tests.support.moved_clock import MovedClock
from tests.support.scripted_store import ScriptedBackend
from tests.support.visits import visit

pytestmark = committed


@on_each_data
@on_each_store
def test_view_without_a_transaction_answers_though_its_lock_was_taken_away(
    store: str,
    using: str,
    lose_late: LoseLate,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its writes are committed, so its answer must not invite a retry."""
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
    """So the client learns what was committed."""

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
    """The commit of its own transaction, in a thread, is kept."""

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
    """In a thread that works for it. The error is answered, without inviting a retry."""

    @distributed_lock("1234collectPayment", backend=store, http=True)
    async def charge(request: HttpRequest) -> HttpResponse:
        @sync_to_async
        def write() -> str:
            with transaction.atomic():
                Counter.objects.create(value=1)
                moved_clock.outdate(lease)
                take_away(lease)
                return "charged"

        # No receiver of signals records the lease: for receivers, the store is asked in a thread.
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
    """Like any view."""

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


def test_expired_lease_is_announced_and_its_store_is_not_asked(
    scripted: ScriptedBackend,
    acquired: list[Lease],
    moved_clock: MovedClock,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The view's own answer is sent."""

    @distributed_lock("1234collectPayment", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        moved_clock.expire(acquired[-1])
        return HttpResponse("charged")

    assert visit(charge).content == b"charged"
    assert scripted.calls == ["acquire"]
    assert list(lost) == acquired
    assert "was lost before its view ended" in caplog.text


def test_lease_that_expires_while_its_release_fails_keeps_the_views_answer(
    scripted: ScriptedBackend,
    acquired: list[Lease],
    moved_clock: MovedClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its work is kept, as after an earlier loss."""

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


def test_unlimited_lock_whose_release_fails_keeps_the_views_answer(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator has to release it, not the client."""

    @distributed_lock("1234collectPayment", http=True, ttl=None)
    def charge(request: HttpRequest) -> HttpResponse:
        scripted.answer("release", DOWN)
        return HttpResponse("charged")

    assert visit(charge).content == b"charged"
    assert "it ends only by its store's force_release()" in caplog.text


def test_view_with_http_false_raises_though_its_work_is_kept(lose_late: LoseLate) -> None:
    """With http=False its caller must get the error."""

    @distributed_lock("1234collectPayment", backend="memory", http=False)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.create(value=1)
        lose_late()
        return HttpResponse("charged")

    with pytest.raises(LockLost):
        visit(charge)
    assert Counter.objects.count() == 1
