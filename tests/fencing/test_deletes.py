"""A row is not deleted under an earlier lease than that of its last write."""

from typing import Any

import pytest

from django_distlock import LockLost
from tests.app.models import DunnedInvoice, Invoice, InvoiceOnScreen, Payment
from tests.support.databases import committed, on_each_database
from tests.support.fenced_rows import LATE, create, lock_of, stored

pytestmark = committed


@on_each_database
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice, InvoiceOnScreen])
def test_delete_cascades_to_dependent_rows(alias: str, model: type[Any]) -> None:
    """As without a fence."""
    row = create(alias, model)
    Payment.objects.using(alias).create(invoice_id=row.pk)
    with lock_of(row) as lease:
        deleted, _ = row.delete(lease=lease)
    assert deleted >= 2
    assert not Payment.objects.using(alias).exists()
    assert not Invoice.objects.using(alias).exists()


@on_each_database
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice])
def test_outdated_delete_changes_nothing(alias: str, model: type[Any]) -> None:
    """Neither the row nor its dependent rows."""
    row = create(alias, model)
    Payment.objects.using(alias).create(invoice_id=row.pk)
    model.objects.using(alias).update(fence=LATE)
    with lock_of(row) as lease, pytest.raises(LockLost, match=f"with pk {row.pk} ") as lost:
        row.delete(lease=lease)
    assert lost.value.lease is lease
    assert stored(row).fence == LATE
    assert Payment.objects.using(alias).exists()


@on_each_database
def test_delete_of_a_deleted_row_does_nothing(alias: str) -> None:
    """Nothing is deleted, without an error; an unsaved object is Django's error."""
    invoice = create(alias)
    with lock_of(invoice) as lease:
        stored(invoice).delete()
        assert invoice.delete(lease=lease) == (0, {})
        with pytest.raises(ValueError, match="can't be deleted"):
            Invoice(customer_id=invoice.customer_id).delete(lease=lease)
