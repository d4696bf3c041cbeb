"""Collect what customers owe, the way it is often written: read a status, pay, write the status."""

import os
import time
from collections.abc import Iterable
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from payments.models import Customer, Invoice, Payment


def collect_payment(customer: Customer) -> bool:
    """Collect the customer's open invoices. Return False if there are none.

    Between reading the status and writing it there is time for others to read it too. Which of
    the two views calls this, the one with the lock or the one without, is all that matters.
    """
    invoices = list(Invoice.objects.filter(customer=customer, status=Invoice.Status.OPEN))
    if not invoices:
        return False
    charge(sum((invoice.amount for invoice in invoices), Decimal()))
    record_payments(invoices)
    return True


def charge(amount: Decimal) -> None:
    """Take the customer's money. Pretended: only the provider's latency is real."""
    time.sleep(settings.PAYMENT_PROVIDER_LATENCY)


@transaction.atomic
def record_payments(invoices: Iterable[Invoice]) -> None:
    """Write down the payments and the invoices' new status."""
    for invoice in invoices:
        Payment.objects.create(invoice=invoice, amount=invoice.amount, worker=os.getpid())
        invoice.status = Invoice.Status.COLLECTED
        invoice.save(update_fields=["status"])


@transaction.atomic
def reset(customers: QuerySet[Customer]) -> None:
    """Make the customers' invoices open again, as if they had never been collected."""
    Payment.objects.filter(invoice__customer__in=customers).delete()
    Invoice.objects.filter(customer__in=customers).update(status=Invoice.Status.OPEN)
