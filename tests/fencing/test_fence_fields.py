"""A model's FenceField in migrations and in the system checks."""

from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, models
from django.test.utils import isolate_apps

from django_distlock import Lease
from django_distlock.fencing import FencedModel, FenceField
from tests.app.models import DunnedInvoice, Greeting, Invoice, InvoiceOnScreen, Parcel
from tests.support.databases import committed, on_each_database
from tests.support.fenced_rows import problems

pytestmark = committed


def lease_of_nothing() -> Lease:
    """Return a lease whose content the checks of a model ignore."""
    return mock.Mock(spec=Lease)


@isolate_apps("tests.app")
def test_field_keeps_its_template_in_migrations() -> None:
    """Arguments that can't be changed are not written."""
    field = FenceField("<pk>a", "fence", db_column="b")
    name, path, args, kwargs = field.deconstruct()
    assert path == "django_distlock.fencing.FenceField"
    assert (name, args) == (None, [])
    assert kwargs == {"semaphore": "<pk>a", "verbose_name": "fence", "db_column": "b"}
    assert field.clone().deconstruct() == field.deconstruct()
    for fixed in ({"default": 1}, {"null": True}, {"editable": True}):
        with pytest.raises(TypeError, match="can't be chosen"):
            FenceField("<pk>a", **fixed)


@pytest.mark.parametrize("template", ["<a><b>", "<a", "<1>"])
def test_malformed_template_raises_where_it_is_written(template: str) -> None:
    """And not at the first write."""
    with pytest.raises(ValueError, match="Template"):
        FenceField(template)


@on_each_database
def test_another_template_alters_no_table(alias: str) -> None:
    """The column stays the same."""
    new = FenceField("<pk>another")
    new.set_attributes_from_name("fence")
    new.model = Invoice
    with connections[alias].schema_editor(collect_sql=True) as editor:
        editor.alter_field(Invoice, Invoice._meta.get_field("fence"), new)
    assert editor.collected_sql == []


@isolate_apps("tests.app")
def test_model_has_one_fence() -> None:
    """Exactly one; and only a FencedModel may have one."""

    class NoFence(FencedModel):
        class Meta:
            app_label = "app"

    class TwoFences(FencedModel):
        one = FenceField("<pk>one")
        two = FenceField("<pk>two")

        class Meta:
            app_label = "app"

    class Unfenced(models.Model):
        fence = FenceField("<pk>one")

        class Meta:
            app_label = "app"

    assert problems(NoFence) == [
        ("distlock.E002", "app.NoFence has 0 FenceFields, but a fenced model has one.")
    ]
    assert problems(TwoFences)[0][1].startswith("app.TwoFences has 2 FenceFields")
    ((id_, text),) = problems(Unfenced)
    assert (id_, text.partition(",")[0]) == ("distlock.E002", "app.Unfenced has a FenceField")
    with pytest.raises(ImproperlyConfigured, match="0 FenceFields"):
        NoFence(pk=1).save(lease=lease_of_nothing())


@isolate_apps("tests.app")
@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("<pk>", None),
        ("<number>", None),
        ("<customer_id>", None),
        ("<customer.pk>", None),
        ("<customer.name>", None),
        ("<label>", None),
        ("<customer.name.title>", None),
        ("<nobody>", "app.Fenced has no 'nobody'."),
        ("<customer.nobody>", "app.Customer has no 'nobody'."),
        ("<customer>", "<customer> is a whole object; write <customer.pk>."),
        ("<int:pk>", None),
        ("<int:number>", None),
        ("<int:customer_id>", None),
        ("<int:customer.pk>", None),
        ("<int:label>", None),
        ("<slug:customer.name>", None),
        ("<str:customer.name>", None),
        ("<str:number>", None),
        (
            "<int:customer.name>",
            "<int:customer.name> is for another field than a CharField; write <customer.name>.",
        ),
        (
            "<uuid:number>",
            "<uuid:number> is for another field than a IntegerField; write <number>.",
        ),
        (
            "<slug:customer_id>",
            "<slug:customer_id> is for another field than a BigAutoField; write <customer_id>.",
        ),
        ("<int:nobody>", "app.Fenced has no 'nobody'."),
        ("<int:customer>", "<customer> is a whole object; write <customer.pk>."),
    ],
)
def test_template_names_attributes_of_the_model(template: str, message: str | None) -> None:
    """Fields and properties, also those of related objects."""

    class Customer(models.Model):
        name = models.CharField(max_length=9)

        class Meta:
            app_label = "app"

    class Fenced(FencedModel):
        customer = models.ForeignKey(Customer, models.CASCADE)
        number = models.IntegerField()
        label = property(str)
        fence = FenceField(template)

        class Meta:
            app_label = "app"

    expected = [("distlock.E003", f"Template {template!r}: {message}")] if message else []
    assert problems(Fenced) == expected


@isolate_apps("tests.app")
@pytest.mark.parametrize(
    ("template", "meant"),
    [
        ("{number}collect", "<number>"),
        ("{customer.pk}collect", "<customer.pk>"),
        ("%(customer_id)s:collect", "<customer_id>"),
        ("<number>:$pk", "<pk>"),
        ("{jobs}collect", None),
    ],
)
def test_template_of_another_style_is_reported(template: str, meant: str | None) -> None:
    """Otherwise all rows would have one lock."""

    class Customer(models.Model):
        class Meta:
            app_label = "app"

    class Fenced(FencedModel):
        customer = models.ForeignKey(Customer, models.CASCADE)
        number = models.IntegerField()
        fence = FenceField(template)

        class Meta:
            app_label = "app"

    found = problems(Fenced)
    assert [code for code, _ in found] == (["distlock.E003"] if meant else [])
    assert all(f"one lock; write {meant}" in text for _, text in found)


@pytest.mark.parametrize("template", [5, None, b"x"])
def test_template_is_a_text(template: Any) -> None:
    """Like the template of a decorator."""
    with pytest.raises(TypeError, match=r"^A template of semaphores is a str, not "):
        FenceField(template)


def test_example_models_are_clean() -> None:
    """The check has no messages about the tests' models."""
    for model in (Invoice, DunnedInvoice, InvoiceOnScreen, Parcel, Greeting):
        assert problems(model) == []
