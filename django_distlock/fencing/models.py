"""Write one row under a lease."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, models, router, transaction
from django.db.models import DEFERRED
from django.db.models.base import ModelBase

from ..leases import Lease
from .fields import find_fence
from .querysets import FencedQuerySet
from .refusals import as_it_is, name_of, refuse


class Save(NamedTuple):
    """A save() under a lease, while it lasts."""

    instance: models.Model
    lease: Lease
    may_insert: bool


# Not an attribute of the instance, which a signal's receiver may pickle.
_save: ContextVar[Save | None] = ContextVar("django_distlock_save", default=None)


class FencedModel(models.Model):
    """A model with a FenceField: under a lease, a row is only written if nobody has it later.

    No save() without a lease changes the fence of a row that is there.
    """

    objects = FencedQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(
        self,
        *,
        lease: Lease | None = None,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Save; under a lease, update the row only if no later holder has written it.

        LockLost if one has, or if the lease is known to be lost; ValueError if it is on another
        semaphore than the object. What was read and is not there any more is not inserted again.
        """
        if lease is not None:
            fence = find_fence(type(self))
            fence.admit(self, lease)
            if update_fields:
                update_fields = {*update_fields, fence.name}
        may_insert = self._state.adding or bool(force_insert) or self.pk is None
        with self._saving(lease and Save(self, lease, may_insert)):
            super().save(
                force_insert=force_insert,
                force_update=force_update,
                using=using,
                update_fields=update_fields,
            )

    @contextmanager
    def _saving(self, save: Save | None) -> Iterator[None]:
        """Save in the block; if that fails, the fence is again what it was in memory."""
        attribute = find_fence(type(self)).attname
        before = self.__dict__.get(attribute, DEFERRED)
        outer = _save.set(save)
        try:
            yield
        except BaseException:
            self.__dict__[attribute] = before
            if before is DEFERRED:
                del self.__dict__[attribute]
            raise
        finally:
            _save.reset(outer)

    def _own_save(self) -> Save | None:
        save = _save.get()
        return save if save and save.instance is self else None

    def _do_update(self, base_qs: Any, using: Any, pk_val: Any, values: Any, *rest: Any) -> Any:
        """Update one table's row: Django's save() calls this for each table of the model."""
        fence, save = find_fence(type(self)), self._own_save()
        if base_qs.model is not fence.model:
            return super()._do_update(base_qs, using, pk_val, values, *rest)
        # What is in memory may be less than what is in the row by now.
        values = [each for each in values if each[0] is not fence]
        if save is None:
            return super()._do_update(base_qs, using, pk_val, values, *rest)
        lease = save.lease
        values.append((fence, None, lease.token))
        rows = base_qs.filter(fence.passed(lease))
        updated = super()._do_update(rows, using, pk_val, values, *rest)
        if updated:
            setattr(self, fence.attname, lease.token)
        else:
            self._refuse_later(base_qs.filter(pk=pk_val), lease)
        return updated

    def _do_insert(self, manager: Any, *args: Any) -> Any:
        """Insert one table's row: Django's save() calls this if there was none to be updated."""
        fence, save = find_fence(type(self)), self._own_save()
        if save and not save.may_insert:
            error = getattr(self, "NotUpdated", DatabaseError)  # NotUpdated is Django 6.0's
            raise error(f"{name_of(self)} is not there any more; its lease inserts it no more.")
        if save and manager.model is fence.model:
            setattr(self, fence.attname, save.lease.token)
        return super()._do_insert(manager, *args)  # type: ignore[misc]

    def delete(
        self, using: str | None = None, keep_parents: bool = False, *, lease: Lease | None = None
    ) -> tuple[int, dict[str, int]]:
        """Delete; under a lease, only if no later holder has written the row. See save()."""
        if lease is None or self.pk is None:  # Django has an error for that
            return super().delete(using, keep_parents)
        fence = find_fence(type(self))
        fence.admit(self, lease)
        using = using or router.db_for_write(type(self), instance=self)
        pk = self._get_pk_val(fence.model._meta)
        rows = fence.model._base_manager.using(using).filter(pk=pk)
        with transaction.atomic(using=using):
            # This locks the row until all that depends on it is deleted, too.
            if rows.filter(fence.passed(lease)).update(**{fence.name: lease.token}):
                return super().delete(using, keep_parents)
            self._refuse_later(rows, lease)
        return 0, {}

    def _refuse_later(self, rows: models.QuerySet[Any], lease: Lease) -> None:
        """Raise LockLost if it was the fence that kept the write off the row."""
        fence = find_fence(type(self))
        later = as_it_is(rows.exclude(fence.passed(lease)))
        for token in later.values_list(fence.name, flat=True):
            raise refuse(lease, name_of(self), token)

    @classmethod
    def check(cls, **kwargs: Any) -> list[checks.CheckMessage]:
        messages = super().check(**kwargs)
        try:
            find_fence(cls)
        except ImproperlyConfigured as error:
            messages.append(checks.Error(str(error), obj=cls, id="distlock.E002"))
        return messages
