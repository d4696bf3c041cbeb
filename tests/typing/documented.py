"""The code of docs/integrations/editors.md."""

from typing import assert_type

from django_distlock import Lease, acquire_lock, distributed_lock, skip


@distributed_lock("<int:customer_id>collectPayment", on_conflict=skip)
def collect(customer_id: int) -> str:
    return f"collected from {customer_id}"


assert_type(collect(customer_id=1234), str | None)  # None if another worker holds the lock

if lease := acquire_lock("1234collectPayment"):
    assert_type(lease, Lease)
    assert_type(lease.token, int | None)  # None if the store has no tokens
