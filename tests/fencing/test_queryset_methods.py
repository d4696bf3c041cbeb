"""A fenced queryset refuses what it can't fence, and supports all other methods."""

import operator
from typing import Any

import pytest

from tests.app.models import Invoice
from tests.support.databases import committed
from tests.support.fenced_rows import create, lock_of, stored

pytestmark = committed


def test_fence_is_set_by_the_lease_alone() -> None:
    """update() under a lease takes no fence as an argument."""
    invoice = create("default")
    with lock_of(invoice) as lease, pytest.raises(ValueError, match="set by the lease"):
        Invoice.objects.fenced(lease).update(fence=1)
    Invoice.objects.update(fence=1)
    assert stored(invoice).fence == 1


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("create", {}),
        ("bulk_create", {"objs": [Invoice()]}),
        ("get_or_create", {"amount": 1}),
        ("update_or_create", {"amount": 1}),
    ],
)
def test_inserts_are_not_fenced(method: str, arguments: dict[str, Any]) -> None:
    """So a fenced queryset refuses them."""
    invoice = create("default")
    with lock_of(invoice) as lease:
        with pytest.raises(TypeError, match="would not be fenced"):
            getattr(Invoice.objects.fenced(lease), method)(**arguments)
    getattr(Invoice.objects.all(), method)(**arguments)
    assert Invoice.objects.count() == 2


def test_querysets_are_combined_before_they_are_fenced() -> None:
    """Afterwards some of the combinations would forget the lease."""
    invoice = create("default")
    rows = Invoice.objects.all()
    with lock_of(invoice) as lease:
        fenced = rows.fenced(lease)
        for one, other in ((rows, fenced), (fenced, rows), (fenced[:1], rows)):
            for combine in (operator.and_, operator.or_, operator.xor):
                with pytest.raises(TypeError, match="first, then call fenced"):
                    combine(one, other)
        assert (rows | rows).fenced(lease).update(amount=13) == 1


def test_slices_are_not_written() -> None:
    """As without a fence."""
    invoice = create("default")
    with lock_of(invoice) as lease:
        rows = Invoice.objects.order_by("amount").fenced(lease)
        for write in (lambda: rows[:1].update(amount=13), rows[:1].delete):
            with pytest.raises(TypeError, match="slice"):
                write()
        assert rows.update(amount=13) == 1


def test_manager_has_no_delete() -> None:
    """So all rows aren't deleted by accident."""
    assert not hasattr(Invoice.objects, "delete")
    invoice = create("default")
    assert Invoice.objects.all().delete() == (1, {"app.Invoice": 1})
    assert not Invoice.objects.filter(pk=invoice.pk).exists()
