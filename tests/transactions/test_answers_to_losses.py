"""The answer to the loss of a lock says whether the work was kept."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from django_distlock import Lease, distributed_lock, lock_backends
from tests.app.models import Counter
from tests.support.databases import committed
from tests.support.holders import take_away
from tests.support.late_losses import (
    LoseLate,
    on_each_store,
    once,
)
from tests.support.moved_clock import MovedClock
from tests.support.visits import SOON, atomic_requests, visit

pytestmark = committed


@once
@on_each_store
def test_answer_says_whether_the_work_was_kept(
    store: str, acquired: list[Lease], moved_clock: MovedClock
) -> None:
    """An operator force-releases it at random moments: before, during and after the commit."""
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
        time.sleep(random.uniform(0, 0.004))  # so that the timing differs
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


@pytest.mark.parametrize("is_atomic", [True, False])
def test_view_that_raises_for_a_lost_lock_invites_no_retry_if_it_has_committed(
    is_atomic: bool, lose_late: LoseLate, caplog: pytest.LogCaptureFixture
) -> None:
    """Its earlier commits are kept, whatever is rolled back."""

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


def test_failure_after_the_commit_for_a_lost_lock_invites_no_retry(acquired: list[Lease]) -> None:
    """Such as a failure in an on_commit() function."""

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


def test_view_that_raises_for_a_lost_lock_invites_a_retry_if_all_is_undone(
    lose_late: LoseLate,
) -> None:
    """The view itself checked the lock."""

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
    """The loss is logged, and does not replace it."""

    @distributed_lock("1234collectPayment", backend="memory", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        lose_late()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        visit(charge)
