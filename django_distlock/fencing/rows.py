"""Which rows a lease may write, as conditions of a query."""

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from django.core.exceptions import ValidationError
from django.db import connections, models
from django.db.models import F, Q
from django.db.models.lookups import Exact

from django_distlock.lease import Lease
from django_distlock.semaphores.templates import SemaphoreTemplate
from django_distlock.semaphores.validation import InvalidSemaphore

from .fields import FenceField
from .placeholders import find_field, lookup

Rows = models.QuerySet[Any]


class Bytes(models.Func):
    """A text that MySQL's family compares byte by byte, whatever its column's collation."""

    template = "CAST(CONVERT(%(expressions)s USING utf8mb4) AS BINARY)"
    output_field: ClassVar[Any] = models.CharField()


class StoredFence(NamedTuple):
    """A row's fence and semaphore in the database; the semaphore is None if it can't have one."""

    pk: Any
    token: int
    semaphore: str | None


def passing_fence(fence: FenceField, lease: Lease) -> Q:
    """Return the condition that the lease's token is not below the row's fence."""
    return Q(**{f"{fence.name}__lte": lease.token})


def having_semaphore(fence: FenceField, rows: Rows, lease: Lease, *, strict: bool = True) -> Q:
    """Return the condition that a row has the lease's semaphore. See values_for()."""
    values = values_for(fence, lease.semaphore, rows.model, strict=strict)
    condition = Q(**values)
    if connections[rows.db].vendor == "mysql":
        # There, `=` takes `a`, `A` and `a ` for the same, but their semaphores are not.
        for name, value in values.items():
            if isinstance(value, str):
                condition &= Q(Exact(Bytes(F(name)), value))
    return condition


def writable_rows(fence: FenceField, rows: Rows, lease: Lease) -> tuple[Rows, bool]:
    """Return those rows that the lease may write, to be updated in one statement.

    And whether the query has all conditions. It leaves out the semaphore if that depends on another
    table: that would need a subquery, whose answer may be outdated when the row is written.
    """
    passing = rows.filter(passing_fence(fence, lease))
    complete = passing.filter(having_semaphore(fence, rows, lease, strict=False))
    return (complete, True) if is_one_table(complete) else (passing, False)


def read_fences(fence: FenceField, rows: Rows, lease: Lease) -> Iterator[StoredFence]:
    """Yield the fence and the semaphore of each row.

    A placeholder that is not a field counts as having the value in the lease's semaphore.
    """
    template = fence.template
    given = dict(zip(template.names, template.read(lease.semaphore) or (), strict=True))
    fields = [name for name in template.names if find_field(rows.model, name)]
    # As dicts: values_list() of Django 5.2.0 returns a column once that is asked for twice.
    for row in rows.values("pk", fence.name, *map(lookup, fields)):
        found = given | {name: row[lookup(name)] for name in fields}
        semaphore = _fill(template, [found[name] for name in template.names])
        yield StoredFence(row["pk"], row[fence.name], semaphore)


def _fill(template: SemaphoreTemplate, values: list[Any]) -> str | None:
    """Return the semaphore with these values; None if they can't make one."""
    try:
        return None if None in values else template.fill(values)
    except InvalidSemaphore:
        return None


def values_for(
    fence: FenceField, semaphore: str, model: type[models.Model], *, strict: bool = True
) -> dict[str, Any]:
    """Return the lookups and values that find the model's rows with this semaphore.

    ValueError if no row can have it, or, if strict, if a placeholder is not a field.
    """
    template = fence.template
    values: dict[str, Any] = {}
    others: dict[str, str] = {}
    try:
        for name, text in zip(template.names, template.read(semaphore) or (), strict=False):
            field = find_field(model, name)
            if field is not None:
                values[name] = field.to_python(text)
            elif strict:
                raise ValueError(
                    f"Template {template.text!r}: <{name}> is not a field, so fenced() finds "
                    "no rows by it; save each with its lease."
                )
            else:
                others[name] = text
        made = template.fill([(values | others)[name] for name in template.names])
    except (KeyError, ValidationError):
        made = ""
    if made != semaphore:  # "01" would be found by the number that belongs to "1"
        raise ValueError(
            f"No {model._meta.label} belongs to {semaphore!r}: its semaphores are made like "
            f"{template.text!r}."
        )
    return {lookup(name): value for name, value in values.items()}


def is_one_table(rows: Rows) -> bool:
    """Return whether all conditions are on the rows themselves."""
    query = rows.query.chain()
    query.get_initial_alias()
    return query.count_active_tables() == 1
