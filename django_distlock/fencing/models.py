"""Write one row under a lease."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, models, router, transaction
from django.db.models import DEFERRED
from django.db.models.base import ModelBase

from django_distlock.leases.lease import Lease

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
        semaphore than the object, or than its row. What was read and is not there any more is not
        inserted again.
        """
        claim: AbstractContextManager[object] = nullcontext()
        if lease is not None:
            fence = find_fence(type(self))
            using = using or router.db_for_write(type(self), instance=self)
            with transaction.mark_for_rollback_on_error(using=using):
                fence.admit(self, lease)
                complete = fence.writable(self._fenced_rows(using), lease)[1]
            if update_fields:
                update_fields = {*update_fields, fence.name}
            if not complete and (update_fields is None or update_fields):
                claim = self._claiming(using, lease)
        may_insert = self._state.adding or bool(force_insert) or self.pk is None
        with self._saving(lease and Save(self, lease, may_insert)), claim:
            super().save(
                force_insert=force_insert,
                force_update=force_update,
                using=using,
                update_fields=update_fields,
            )

    async def asave(
        self,
        *,
        lease: Lease | None = None,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """See save()."""
        await sync_to_async(self.save)(
            lease=lease,
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

    @contextmanager
    def _claiming(self, using: str, lease: Lease) -> Iterator[None]:
        """Claim the row before the block's first statement, and keep it until the last one."""
        with transaction.atomic(using=using, savepoint=False):
            self._claim(using, lease)
            yield

    def _own_save(self) -> Save | None:
        save = _save.get()
        return save if save and save.instance is self else None

    def _do_update(
        self,
        base_qs: Any,
        using: Any,
        pk_val: Any,
        values: Any,
        update_fields: Any,
        forced_update: Any,
        *rest: Any,
    ) -> Any:
        """Update one table's row: Django's save() calls this for each table of the model."""
        fence, save = find_fence(type(self)), self._own_save()
        rows = base_qs
        if base_qs.model is fence.model:
            # What is in memory may be less than what is in the row by now.
            values = [each for each in values if each[0] is not fence]
            if save:
                fence.admit(self, save.lease)  # once more, after the receivers of pre_save
                values.append((fence, None, save.lease.token))
                rows, _ = fence.writable(base_qs, save.lease)
                # Without the SELECTs of select_on_save, which may see what isn't there any more.
                forced_update = True
        updated = super()._do_update(
            rows, using, pk_val, values, update_fields, forced_update, *rest
        )
        if save and base_qs.model is fence.model:
            if updated:
                setattr(self, fence.attname, save.lease.token)
            else:
                self._refuse(base_qs.filter(pk=pk_val), save.lease)
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
        find_fence(type(self)).admit(self, lease)
        using = using or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using):
            # This locks the row until all that depends on it is deleted, too.
            if self._claim(using, lease):
                return super().delete(using, keep_parents)
        return 0, {}

    async def adelete(
        self, using: str | None = None, keep_parents: bool = False, *, lease: Lease | None = None
    ) -> tuple[int, dict[str, int]]:
        """See delete()."""
        return await sync_to_async(self.delete)(using, keep_parents, lease=lease)

    def _fenced_rows(self, using: str) -> models.QuerySet[Any]:
        """Return the object's row in the table that has the fence."""
        model = find_fence(type(self)).model
        return model._base_manager.using(using).filter(pk=self._get_pk_val(model._meta))

    def _claim(self, using: str, lease: Lease) -> bool:
        """Set the row's fence, which locks it; tell whether it is there. See save()."""
        fence, rows = find_fence(type(self)), self._fenced_rows(using)
        mine, complete = fence.writable(rows, lease)
        claimed = bool(mine.update(**{fence.name: lease.token}))
        if not (claimed and complete):
            self._refuse(rows, lease)
        return claimed

    def _refuse(self, rows: models.QuerySet[Any], lease: Lease) -> None:
        """Raise if the row belongs to another semaphore, or was written later."""
        for _, token, semaphore in find_fence(type(self)).read(as_it_is(rows), lease):
            if semaphore != lease.semaphore:
                raise ValueError(
                    f"The row of {name_of(self)} belongs to {semaphore!r}, but the object and the "
                    f"lease belong to {lease.semaphore!r}."
                )
            if token > (lease.token or 0):
                raise refuse(lease, name_of(self), token)

    @classmethod
    def check(cls, **kwargs: Any) -> list[checks.CheckMessage]:
        messages = super().check(**kwargs)
        try:
            find_fence(cls)
        except ImproperlyConfigured as error:
            messages.append(checks.Error(str(error), obj=cls, id="distlock.E002"))
        return messages
