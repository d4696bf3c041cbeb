"""Fenced models, their querysets, and their fences."""

from typing import assert_type

from django.db import models

from django_distlock import Lease, distributed_lock
from django_distlock.fencing import FencedModel, FencedQuerySet, FenceField


class Payment(FencedModel):
    """A row that refuses a writer whose lock has had a later holder."""

    customer_id: "models.IntegerField[int, int]" = models.IntegerField()
    status: "models.CharField[str, str]" = models.CharField(max_length=10)
    fence = FenceField("<customer_id>collectPayment")


class InvoiceQuerySet(FencedQuerySet["Invoice"]):
    """A queryset of the user's own."""

    def open(self) -> "InvoiceQuerySet":
        """Return what is not paid yet."""
        return self.filter(status="open")


class Invoice(FencedModel):
    """A model with managers of its own."""

    status: "models.CharField[str, str]" = models.CharField(max_length=10)
    fence = FenceField("<pk>:invoice", "fence")
    objects = InvoiceQuerySet.as_manager()


def write(payment: Payment) -> None:
    """Write rows under a lease, and without."""
    with distributed_lock(f"{payment.customer_id}collectPayment") as lease:
        payment.save(lease=lease, update_fields=["status"])
        assert_type(payment.delete(lease=lease), tuple[int, dict[str, int]])
    payment.save(force_update=True)
    assert_type(payment.fence, int)


async def write_in_async_code(payment: Payment, lease: Lease) -> None:
    """The same."""
    await payment.asave(lease=lease)
    assert_type(await payment.adelete(lease=lease), tuple[int, dict[str, int]])


def write_many(lease: Lease) -> None:
    """Querysets keep the model, and stay fenced querysets."""
    payments = Payment.objects.fenced(lease)
    assert_type(payments, FencedQuerySet[Payment])
    assert_type(payments.filter(status="open").update(status="paid"), int)
    assert_type(Payment.objects.filter(pk=1).fenced(lease), FencedQuerySet[Payment])
    assert_type(payments.delete(), tuple[int, dict[str, int]])
    assert_type(payments.get(), Payment)
    assert_type([each.status for each in payments], list[str])
