"""A save that fails changes neither the object nor its transaction's other rows."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from django.db.models.signals import post_save
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from django_distlock import LockLost, distributed_lock
from tests.app.models import DunnedInvoice, Invoice, Payment
from tests.support.concurrency import Interrupted
from tests.support.databases import committed, on_each_database
from tests.support.fenced_rows import LATE, create, have_lost, lock_of, stored

pytestmark = committed


@on_each_database
def test_save_that_fails_leaves_the_object_as_it_was(
    alias: str, receivers: Callable[..., None]
) -> None:
    """Whatever error stops it, and after whichever statement."""

    def interrupt(**kwargs: Any) -> None:
        raise Interrupted

    invoice = create(alias)
    receivers(post_save, interrupt)
    with lock_of(invoice) as lease, pytest.raises(Interrupted), transaction.atomic(using=alias):
        invoice.save(lease=lease)
    assert invoice.fence == stored(invoice).fence == 0


@on_each_database
def test_refused_save_rolls_its_transaction_back(alias: str) -> None:
    """In a savepoint, it rolls back to the savepoint."""
    invoice = create(alias)
    Invoice.objects.using(alias).update(fence=LATE)
    with lock_of(invoice) as lease, pytest.raises(LockLost), transaction.atomic(using=alias):
        Payment.objects.using(alias).create(invoice=invoice)
        invoice.save(lease=lease)
    assert not Payment.objects.using(alias).exists()
    with lock_of(invoice) as lease, transaction.atomic(using=alias):
        Payment.objects.using(alias).create(invoice=invoice)
        with pytest.raises(LockLost), transaction.atomic(using=alias):
            invoice.save(lease=lease)
    assert Payment.objects.using(alias).exists()


@on_each_database
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice])
def test_save_with_a_lost_lease_rolls_its_transaction_back(alias: str, model: type[Any]) -> None:
    """Even if no statement was sent, and even if the error is caught."""
    invoice = create(alias, model)
    with lock_of(invoice) as lease:
        have_lost(lease)
        with transaction.atomic(using=alias):
            Payment.objects.using(alias).create(invoice_id=invoice.pk)
            with pytest.raises(LockLost):
                invoice.save(lease=lease)
    assert not Payment.objects.using(alias).exists()


@on_each_database
def test_rolled_back_save_leaves_the_rows_fence(alias: str) -> None:
    """The fence is part of the transaction."""
    invoice = create(alias)
    with lock_of(invoice) as lease:
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=alias):
            invoice.save(lease=lease)
            raise ZeroDivisionError
    assert stored(invoice).fence == 0


@on_each_database
def test_view_whose_write_is_refused_answers_503(alias: str) -> None:
    """The view gets its own lease by reentering the lock."""
    invoice = create(alias)
    semaphore = f"{invoice.customer_id}collectPayment"

    @distributed_lock(lambda request: semaphore, backend=alias, http=True)
    def view(request: HttpRequest) -> HttpResponse:
        with distributed_lock(semaphore, backend=alias, reentrant=True) as lease:
            Invoice.objects.using(alias).update(fence=LATE)
            invoice.save(lease=lease)
        pytest.fail("It was written.")

    response = view(RequestFactory().get("/"))
    assert response.status_code == 503
