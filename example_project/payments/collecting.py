"""Collect what customers owe, as it is often written: read a status, pay, write the status."""

import os
import time
from collections.abc import Iterable
from contextlib import nullcontext
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from django_distlock import Lease
from payments.models import Customer, Invoice, Payment


def collect_payment(customer: Customer, lease: Lease | None = None) -> bool:
    """Collect the customer's open invoices. Return False if there are none.

    Between reading the status and writing it there is time for others to read it too. Which of
    the two views calls this, the one with the lock or the one without, is all that matters. Under
    a lease, invoices that a later holder has collected are left alone: LockLost.
    """
    invoices = list(Invoice.objects.filter(customer=customer, status=Invoice.Status.OPEN))
    if not invoices:
        return False
    authorize(sum((invoice.amount for invoice in invoices), Decimal()))
    # A commit under a lock checks it by itself; writes outside transactions pass their lease.
    with nullcontext() if lease else transaction.atomic():
        record_payments(invoices, lease)
    return True


def authorize(amount: Decimal) -> None:
    """Ask the payment provider for the money. Simulated: only the provider's latency is real."""
    time.sleep(settings.PAYMENT_PROVIDER_LATENCY)


def record_payments(invoices: Iterable[Invoice], lease: Lease | None) -> None:
    """Write the invoices' new status, which may be refused, and then take the money."""
    for invoice in invoices:
        invoice.status = Invoice.Status.COLLECTED
        invoice.save(update_fields=["status"], lease=lease)
        Payment.objects.create(invoice=invoice, amount=invoice.amount, worker=os.getpid())


@transaction.atomic
def reset(customers: QuerySet[Customer]) -> None:
    """Make the customers' invoices open again, as if they had never been collected."""
    Payment.objects.filter(invoice__customer__in=customers).delete()
    Invoice.objects.filter(customer__in=customers).update(status=Invoice.Status.OPEN)
