"""Match the placeholders of a fence's template with the fields of its model."""

from typing import Any, Final, cast

from django.core.exceptions import FieldDoesNotExist
from django.db import models

from django_distlock.semaphores.placeholders import Placeholder

CONVERTED_FIELDS: "Final[dict[str, tuple[type[models.Field[Any, Any]], ...]]]" = {
    "int": (models.IntegerField,),
    "uuid": (models.UUIDField,),
    "slug": (models.CharField, models.TextField),
}
"""The fields whose every value has one text only, as the placeholder's converter makes it."""


def find_field(model: Any, name: str) -> "models.Field[Any, Any] | None":
    """Return the field that a placeholder leads to, or None for a property or another attribute.

    ValueError if the model has no such attribute, or if it is a related object.
    """
    first, _, rest = name.partition(".")
    try:
        field = model._meta.pk if first == "pk" else model._meta.get_field(first)
    except FieldDoesNotExist:
        if not hasattr(model, first):
            raise ValueError(f"{model._meta.label} has no {first!r}.") from None
        return None
    is_object = field.is_relation and first == field.name
    if rest:
        return find_field(field.related_model, rest) if is_object else None
    if is_object:
        raise ValueError(f"<{name}> is a whole object; write <{name}.pk>.")
    return field if field.concrete else None


def check_placeholder(placeholder: Placeholder, model: Any) -> None:
    """Raise ValueError if the model has no such attribute, or one that the converter doesn't fit.

    Two values of the field must not make one semaphore: a row with "07" in a text column would not
    be found by the "7" of its semaphore.
    """
    field = find_field(model, placeholder.name)
    while field is not None and field.is_relation:
        field = cast("models.ForeignKey[Any, Any]", field).target_field
    fitting = CONVERTED_FIELDS.get(placeholder.converter)
    if fitting and field is not None and not isinstance(field, fitting):
        raise ValueError(
            f"{placeholder} is for another field than a {type(field).__name__}; write "
            f"<{placeholder.name}>."
        )


def lookup(name: str) -> str:
    """Return a placeholder's name as a lookup of the ORM."""
    return name.replace(".", "__")
