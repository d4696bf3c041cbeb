"""The fence of a row: a token, and the semaphore that the row belongs to."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from django.core import checks
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured, ValidationError
from django.db import connections, models
from django.db.models import F, Q
from django.db.models.lookups import Exact

from django_distlock.leases.lease import Lease
from django_distlock.semaphores.placeholders import Placeholder
from django_distlock.semaphores.templates import SemaphoreTemplate
from django_distlock.semaphores.validation import InvalidSemaphore

from .refusals import check_held, check_lease, check_token, name_of

if TYPE_CHECKING:
    _BigIntegerField = models.BigIntegerField[int, int]
else:
    _BigIntegerField = models.BigIntegerField


class Bytes(models.Func):
    """A text that MySQL's family compares byte by byte, whatever its column's collation."""

    template = "CAST(CONVERT(%(expressions)s USING utf8mb4) AS BINARY)"
    output_field: ClassVar[Any] = models.CharField()


class FenceField(_BigIntegerField):
    """The token of the lease under which the row was written last.

    `semaphore` is the template of the lock that a row belongs to, filled with the row's own
    attributes: `"<pk>collectPayment"`, `"<customer_id>collectPayment"`.
    """

    non_db_attrs = (*models.BigIntegerField.non_db_attrs, "semaphore")
    fixed: Final[dict[str, Any]] = {"default": 0, "editable": False, "null": False}

    def __init__(self, semaphore: str, verbose_name: str | None = None, **kwargs: Any) -> None:
        if given := self.fixed.keys() & kwargs:
            raise TypeError(f"A FenceField's {', '.join(sorted(given))} can't be chosen.")
        self.template = SemaphoreTemplate(semaphore)
        self.semaphore = self.template.text
        super().__init__(verbose_name, **kwargs, **self.fixed)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs = {key: kwargs[key] for key in kwargs if key not in self.fixed}
        path = path.replace("django_distlock.fencing.fields", "django_distlock.fencing")
        # By keyword, where non_db_attrs is looked for: another template alters no table.
        return name, path, args, kwargs | {"semaphore": self.semaphore}

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Leave the row's fence alone when a migration, whose models are plain ones, saves it."""
        if add or _is_fenced(type(model_instance)):
            return super().pre_save(model_instance, add)
        return F(self.attname)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        return [*super().check(**kwargs), *self._check_model(), *self._check_template()]

    def _check_model(self) -> Iterator[checks.CheckMessage]:
        if not _is_fenced(self.model):
            yield checks.Error(
                f"{self.model._meta.label} has a FenceField, but is no FencedModel: nothing looks "
                "at the fence.",
                obj=self,
                id="distlock.E002",
            )

    def _check_template(self) -> Iterator[checks.CheckMessage]:
        fields = {name for each in self.model._meta.fields for name in (each.name, each.attname)}
        if problem := self.template.other_style({"pk", *fields}):
            yield checks.Error(problem, obj=self, id="distlock.E003")
        for placeholder in self.template.placeholders:
            try:
                field = find_field(self.model, placeholder.name)
                _check_converter(placeholder, field)
            except ValueError as error:
                text = f"Template {self.semaphore!r}: {error}"
                yield checks.Error(text, obj=self, id="distlock.E003")

    def admit(self, instance: models.Model, lease: Lease) -> None:
        """Raise unless the lease is on the instance's semaphore, and held as far as is known."""
        check_lease(lease)
        semaphore = self.template.render_for(instance)
        if semaphore != lease.semaphore:
            raise ValueError(
                f"{name_of(instance)} belongs to {semaphore!r}, but the lease is on "
                f"{lease.semaphore!r}."
            )
        check_token(lease)
        check_held(lease, name_of(instance))

    def passed(self, lease: Lease) -> Q:
        """Return the condition that the lease's token passes the fence."""
        return Q(**{f"{self.name}__lte": lease.token})

    def belonging(self, lease: Lease, rows: "models.QuerySet[Any]", *, strict: bool = True) -> Q:
        """Return the condition that a row belongs to the lease's semaphore. See values_in()."""
        values = self.values_in(lease.semaphore, rows.model, strict=strict)
        condition = Q(**values)
        if connections[rows.db].vendor == "mysql":
            # There, `=` takes `a`, `A` and `a ` for the same, but their semaphores are not.
            for lookup, value in values.items():
                if isinstance(value, str):
                    condition &= Q(Exact(Bytes(F(lookup)), value))
        return condition

    def writable(
        self, rows: "models.QuerySet[Any]", lease: Lease
    ) -> "tuple[models.QuerySet[Any], bool]":
        """Return those of the table's rows that the lease may write, to be updated at once.

        And whether that is all there is to ask: what a row's semaphore has of other tables would
        make a subquery, whose answer may be outdated when the row is written.
        """
        passed = rows.filter(self.passed(lease))
        mine = passed.filter(self.belonging(lease, rows, strict=False))
        return (mine, True) if is_one_table(mine) else (passed, False)

    def read(
        self, rows: "models.QuerySet[Any]", lease: Lease
    ) -> Iterator[tuple[Any, int, str | None]]:
        """Yield each row's key, fence and semaphore, None for a row that can have none.

        What is not a field counts as what the lease says.
        """
        names = self.template.names
        given = dict(zip(names, self.template.read(lease.semaphore) or (), strict=True))
        fields = [name for name in names if find_field(rows.model, name)]
        # By name: values_list() of Django 5.2.0 has a column once that is asked for twice.
        for row in rows.values("pk", self.name, *map(_lookup, fields)):
            found = given | {name: row[_lookup(name)] for name in fields}
            yield row["pk"], row[self.name], self._made([found[name] for name in names])

    def _made(self, values: list[Any]) -> str | None:
        """Return the semaphore of a row; None if none is made of such values."""
        try:
            return None if None in values else self.template.fill(values)
        except InvalidSemaphore:
            return None

    def values_in(
        self, semaphore: str, model: type[models.Model], *, strict: bool = True
    ) -> dict[str, Any]:
        """Return the values that the model's rows of this semaphore have, by their lookups.

        ValueError if no row can have it, or, if strict, if it is made of other things than fields.
        """
        values: dict[str, Any] = {}
        others: dict[str, str] = {}
        template = self.template
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
        return {_lookup(name): value for name, value in values.items()}

    def moved_by(self, names: Iterable[str], model: type[models.Model]) -> str | None:
        """Return the first of the fields that tell which lock a row belongs to, if there is one."""
        meta: Any = model._meta
        roots = {name.partition(".")[0] for name in self.template.names}
        own = {meta.pk} if "pk" in roots else set()
        own |= {field for field in meta.fields if roots & {field.name, field.attname}}
        return next((name for name in names if meta.get_field(name) in own), None)


def find_field(model: Any, name: str) -> "models.Field[Any, Any] | None":
    """Return the field that a placeholder leads to, or None for a property, or the like.

    ValueError if the model has no such attribute, or if it is a whole object.
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


FIELDS: "Final[dict[str, tuple[type[models.Field[Any, Any]], ...]]]" = {
    "int": (models.IntegerField,),
    "uuid": (models.UUIDField,),
    "slug": (models.CharField, models.TextField),
}
"""Whose values have one text each, as the placeholder's converter makes it."""


def _check_converter(placeholder: Placeholder, field: "models.Field[Any, Any] | None") -> None:
    """Raise ValueError if rows could have the same semaphore by different values of the field.

    A row with "07" in a column of texts would not be found by the "7" of its semaphore.
    """
    while field is not None and field.is_relation:
        field = cast("models.ForeignKey[Any, Any]", field).target_field
    kinds = FIELDS.get(placeholder.converter)
    if kinds and field is not None and not isinstance(field, kinds):
        raise ValueError(
            f"{placeholder} is for another field than a {type(field).__name__}; write "
            f"<{placeholder.name}>."
        )


def find_fence(model: type[models.Model]) -> FenceField:
    """Return the model's fence."""
    fences = [field for field in model._meta.concrete_fields if isinstance(field, FenceField)]
    if len(fences) != 1:
        raise ImproperlyConfigured(
            f"{model._meta.label} has {len(fences)} FenceFields, but a fenced model has one."
        )
    return fences[0]


def is_one_table(rows: "models.QuerySet[Any]") -> bool:
    """Tell whether all conditions are on the rows themselves."""
    query = rows.query.chain()
    query.get_initial_alias()
    return query.count_active_tables() == 1


def _lookup(name: str) -> str:
    return name.replace(".", "__")


def _is_fenced(model: type[models.Model]) -> bool:
    from .models import FencedModel  # which is made of this module

    return issubclass(model, FencedModel)
