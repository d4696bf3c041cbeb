"""FenceField: the column for the token of a row's last writer, and the template of its lock."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models import F

from django_distlock.semaphores.templates import SemaphoreTemplate

from .placeholders import check_placeholder

OWN_FIELDS: Final = (
    'Write FenceField("<pk>…") or FenceField("<customer_id>…"), with names of the model\'s own '
    "fields."
)

if TYPE_CHECKING:
    _BigIntegerField = models.BigIntegerField[int, int]
else:
    _BigIntegerField = models.BigIntegerField


class BaseFencedModel(models.Model):
    """Base of FencedModel, by which a FenceField knows that its model compares the fence."""

    class Meta:
        abstract = True


class FenceField(_BigIntegerField):
    """A column with the token of the lease under which its row was last written.

    `semaphore` is the template of the lock that a row belongs to, filled with the row's own
    attributes: `"<pk>collectPayment"`, `"<customer_id>collectPayment"`. The field is not editable,
    not null, and 0 by default.
    """

    non_db_attrs = (*models.BigIntegerField.non_db_attrs, "semaphore")
    fixed: Final[dict[str, Any]] = {"default": 0, "editable": False, "null": False}

    def __init__(self, semaphore: str, verbose_name: str | None = None, **kwargs: Any) -> None:
        if given := self.fixed.keys() & kwargs:
            raise TypeError(
                f"A FenceField's {', '.join(sorted(given))} can't be chosen: leave it out."
            )
        self.template = SemaphoreTemplate(semaphore)
        self.semaphore = self.template.text
        super().__init__(verbose_name, **kwargs, **self.fixed)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs = {key: kwargs[key] for key in kwargs if key not in self.fixed}
        path = path.replace("django_distlock.fencing.fields", "django_distlock.fencing")
        # By keyword, because non_db_attrs are looked up there: a new template alters no table.
        return name, path, args, kwargs | {"semaphore": self.semaphore}

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Keep the row's fence when a migration saves it: models there are plain ones."""
        if add or isinstance(model_instance, BaseFencedModel):
            return super().pre_save(model_instance, add)
        return F(self.attname)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        return [*super().check(**kwargs), *self._check_model(), *self._check_template()]

    def _check_model(self) -> Iterator[checks.CheckMessage]:
        if not issubclass(self.model, BaseFencedModel):
            yield checks.Error(
                f"{self.model._meta.label} has a FenceField, but is not a FencedModel, so nothing "
                "compares the fence.",
                hint=f"Write class {self.model.__name__}(FencedModel), with FencedModel from "
                "django_distlock.fencing.",
                obj=self,
                id="distlock.E002",
            )

    def _check_template(self) -> Iterator[checks.CheckMessage]:
        fields = {name for each in self.model._meta.fields for name in (each.name, each.attname)}
        if problem := self.template.other_style({"pk", *fields}):
            yield checks.Error(problem, hint=OWN_FIELDS, obj=self, id="distlock.E003")
        for placeholder in self.template.placeholders:
            try:
                check_placeholder(placeholder, self.model)
            except ValueError as error:
                text = f"Template {self.semaphore!r}: {error}"
                yield checks.Error(text, hint=OWN_FIELDS, obj=self, id="distlock.E003")

    def changed_by(self, names: Iterable[str], model: type[models.Model]) -> str | None:
        """Return the first of the fields that the row's semaphore is made of, if one is there."""
        meta: Any = model._meta
        roots = {name.partition(".")[0] for name in self.template.names}
        own = {meta.pk} if "pk" in roots else set()
        own |= {field for field in meta.fields if roots & {field.name, field.attname}}
        return next((name for name in names if meta.get_field(name) in own), None)


def find_fence(model: type[models.Model]) -> FenceField:
    """Return the model's fence."""
    fences = [field for field in model._meta.concrete_fields if isinstance(field, FenceField)]
    if len(fences) != 1:
        raise ImproperlyConfigured(
            f"{model._meta.label} has {len(fences)} FenceFields, but a fenced model has one."
        )
    return fences[0]
