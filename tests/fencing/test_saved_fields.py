"""In every use of save(), the row's fence is set under a lease and kept without one."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from django.core import serializers
from django.db import DatabaseError
from django.db.migrations.state import ProjectState
from django.db.models.signals import post_save, pre_save

from django_distlock import LockLost
from tests.app.models import Customer, DunnedInvoice, Invoice, Parcel
from tests.support.databases import committed, on_each_database
from tests.support.fenced_rows import LATE, create, lock_of, stored
from tests.support.holders import holding

pytestmark = committed


@on_each_database
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice])
def test_save_without_a_lease_does_not_change_the_fence(alias: str, model: type[Any]) -> None:
    """The fence in memory may be older than the row's."""
    row = create(alias, model)
    model.objects.using(alias).update(fence=LATE)
    row.amount = 13
    row.save()
    assert (stored(row).amount, stored(row).fence, row.fence) == (13, LATE, 0)
    row.save(update_fields=["fence"])
    assert stored(row).fence == LATE


@on_each_database
def test_loaded_fixture_does_not_change_the_fence(alias: str) -> None:
    """A fixture may be older than the row, too. Missing rows are inserted."""
    invoice = create(alias)
    fixture = serializers.serialize("json", [invoice])
    with lock_of(invoice) as lease:
        invoice.save(lease=lease)
    (loaded,) = serializers.deserialize("json", fixture, using=alias)
    loaded.save(using=alias)
    assert stored(invoice).fence == lease.token


@on_each_database
def test_migrations_save_does_not_change_the_fence(alias: str) -> None:
    """Even though its model is not a FencedModel."""
    invoice = create(alias)
    historical = ProjectState.from_apps(Invoice._meta.apps).apps.get_model("app", "Invoice")
    old = historical._default_manager.using(alias).get()
    Invoice.objects.using(alias).update(fence=LATE)
    old.amount = 13
    old.save()
    assert (stored(invoice).amount, stored(invoice).fence) == (13, LATE)
    new = historical(amount=1, fence=5)
    new.save(using=alias)
    assert Invoice.objects.using(alias).get(amount=1).fence == 5


@on_each_database
def test_deferred_fence_is_set_too(alias: str) -> None:
    """The object need not have loaded the fence."""
    pk = create(alias).pk
    rows = Invoice.objects.using(alias)
    invoice = rows.only("customer", "amount").get(pk=pk)
    with lock_of(invoice) as lease:
        invoice.amount = 13
        invoice.save(lease=lease)
    assert (stored(invoice).amount, stored(invoice).fence) == (13, lease.token)
    assert invoice.fence == lease.token
    rows.update(fence=LATE)
    invoice = rows.only("customer", "amount").get(pk=pk)
    with lock_of(invoice) as lease, pytest.raises(LockLost):
        invoice.save(lease=lease)
    assert "fence" in invoice.get_deferred_fields()


@on_each_database
def test_update_fields_gets_the_fence(alias: str, receivers: Callable[..., None]) -> None:
    """Receivers get the fence in update_fields; empty update_fields write nothing, as usual."""
    invoice = create(alias)
    seen = []
    receivers(post_save, lambda update_fields, **kwargs: seen.append(update_fields))
    with lock_of(invoice) as lease:
        invoice.save(lease=lease, update_fields=[])
        assert (invoice.fence, stored(invoice).fence) == (0, 0)
        invoice.amount = 13
        invoice.save(lease=lease, update_fields=["customer"])
    assert seen == [{"customer", "fence"}]
    assert (stored(invoice).amount, stored(invoice).fence) == (0, lease.token)


@on_each_database
def test_receivers_save_and_pickle_what_is_being_saved(
    alias: str, receivers: Callable[..., None]
) -> None:
    """Their own save has no lease, and the pickle doesn't contain one."""
    invoice, pickled = create(alias), []

    def receive(instance: Invoice, **kwargs: Any) -> None:
        pickled.append(pickle.dumps(instance))
        if instance.amount < 15:
            instance.amount += 1
            Invoice.objects.using(alias).update(fence=LATE)
            instance.save()
            Invoice.objects.using(alias).update(fence=0)

    receivers(pre_save, receive)
    with lock_of(invoice) as lease:
        invoice.amount = 13
        invoice.save(lease=lease)
    assert len(pickled) == 3
    assert (stored(invoice).amount, stored(invoice).fence) == (15, lease.token)


@on_each_database
@pytest.mark.parametrize("fields", [None, "fence"])
@pytest.mark.parametrize("model", [Invoice, DunnedInvoice, Parcel])
def test_row_that_is_gone_is_not_inserted_again(
    alias: str, model: type[Any], fields: str | None
) -> None:
    """The row was deleted by somebody else."""
    row = Parcel.objects.using(alias).create() if model is Parcel else create(alias, model)
    model.objects.using(alias).all().delete()
    with lock_of(row) as lease:
        with pytest.raises(DatabaseError, match=r"not there any more|did not affect any rows"):
            row.save(lease=lease, update_fields=fields and [fields])
        assert lease.held
    assert row.fence == 0
    assert not model.objects.using(alias).exists()


@on_each_database
def test_insert_under_a_lease_begins_with_its_token(alias: str) -> None:
    """A new row has no fence that could refuse it; an existing row has one."""
    customer = Customer.objects.using(alias).create(name="Ada")
    with holding(alias, f"{customer.pk}collectPayment") as lease:
        invoice = Invoice(customer=customer)
        invoice.save(using=alias, lease=lease)
        assert invoice.fence == stored(invoice).fence == lease.token
        child = DunnedInvoice(customer=customer)
        child.save(using=alias, lease=lease, force_insert=True)
        assert child.fence == stored(child).fence == lease.token
        copy = stored(invoice)
        copy.pk, copy.fence = None, 0
        copy.save(lease=lease)
        assert copy.pk != invoice.pk
        assert stored(copy).fence == lease.token
        Invoice.objects.using(alias).update(fence=LATE)
        with pytest.raises(LockLost):
            Invoice(pk=invoice.pk, customer=customer).save(using=alias, lease=lease)
    with holding(alias, "99:send") as lease:
        parcel = Parcel(pk=99)
        parcel.save(using=alias, lease=lease)
        assert parcel.fence == stored(parcel).fence == lease.token
