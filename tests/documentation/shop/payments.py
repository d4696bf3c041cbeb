"""The work that the examples lock."""

from __future__ import annotations

from tests.documentation.shop.models import Invoice

collected: list[int] = []
"""The customers whose payment was collected, in this order."""


charges: dict[str, int] = {}
"""What the payment provider has charged, by idempotency key."""


def charge(amount: int, *, idempotency_key: str) -> None:
    """Ask the provider to charge an amount. It does so once for each key."""
    charges.setdefault(idempotency_key, amount)


def collect_payment(customer_id: int) -> None:
    """Collect the payment of a customer."""
    collected.append(customer_id)


async def acollect_payment(customer_id: int) -> None:
    """See collect_payment()."""
    collect_payment(customer_id)


def collect_payments() -> None:
    """Collect the payments of all customers who owe something."""
    unpaid = Invoice.objects.filter(paid=False)
    for customer_id in unpaid.values_list("customer_id", flat=True).distinct():
        collect_payment(customer_id)
