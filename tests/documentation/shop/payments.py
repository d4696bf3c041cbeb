"""The work that the examples lock."""

from __future__ import annotations

collected: list[int] = []
"""The customers whose payment was collected, in this order."""


def collect_payment(customer_id: int) -> None:
    """Collect the payment of a customer."""
    collected.append(customer_id)


async def acollect_payment(customer_id: int) -> None:
    """See collect_payment()."""
    collect_payment(customer_id)
