"""The rows of one lock are found by the values in its semaphore."""

from unittest import mock

import pytest
from django.db.models import F

from tests.app.models import Customer, Greeting, Invoice
from tests.support.databases import committed, on_each_database
from tests.support.fenced_rows import another_template, create, lock_of, stored
from tests.support.holders import holding

pytestmark = committed


@on_each_database
@pytest.mark.parametrize("number", ["0{}", "{}x", "", "%34"])
def test_semaphore_that_no_row_has(alias: str, number: str) -> None:
    """Even if its text is another spelling of a row's number."""
    invoice = create(alias)
    with holding(alias, f"{number.format(invoice.customer_id)}collectPayment") as lease:
        with pytest.raises(ValueError, match=r"belongs to"):
            Invoice.objects.using(alias).fenced(lease).update(amount=13)
    with holding(alias, "nothing of the kind") as lease:
        with pytest.raises(ValueError, match=r"No app\.Invoice belongs to 'nothing of the kind'"):
            Invoice.objects.fenced(lease)


@on_each_database
def test_texts_are_compared_byte_by_byte(alias: str) -> None:
    """MariaDB's `=` ignores case, but semaphores differ by it."""
    names = ["Ada", "ada", "Ada ", "Adá", "", "a/b%"]
    greetings = [create(alias, Greeting, name=name) for name in names]
    for each in greetings:
        with lock_of(each) as lease:
            rows = Greeting.objects.using(alias)
            assert rows.filter(pk=each.pk).fenced(lease).update(sent=F("sent") + 1) == 1
            for other in greetings:
                if other is not each:
                    with pytest.raises(ValueError, match=f"pk {other.pk} belongs to"):
                        rows.filter(pk=other.pk).fenced(lease).update(sent=13)
    assert [stored(each).sent for each in greetings] == [1] * len(names)
    Greeting.objects.using(alias).update(customer=None)
    with holding(alias, "Ada:greet") as lease, pytest.raises(ValueError, match="belongs to None"):
        Greeting.objects.using(alias).fenced(lease).update(sent=13)


@pytest.mark.parametrize("template", ["<owner>:a", "<customer.owner>:a"])
def test_template_that_is_not_made_of_fields_is_for_single_objects(template: str) -> None:
    """The database can't compare a property."""
    invoice = create("default")
    with (
        mock.patch.object(Invoice, "owner", "Ada", create=True),
        mock.patch.object(Customer, "owner", "Ada", create=True),
        another_template(template),
        lock_of(invoice) as lease,
    ):
        invoice.save(lease=lease)
        with pytest.raises(ValueError, match="is not a field"):
            Invoice.objects.fenced(lease)


def test_one_lock_may_be_all_rows() -> None:
    """By a template without placeholders."""
    create("default")
    invoice = create("default")
    with another_template("all"), lock_of(invoice) as lease:
        assert Invoice.objects.fenced(lease).update(amount=13) == 2
