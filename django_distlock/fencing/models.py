"""FencedModel: write one row under a lease."""

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

from django_distlock.lease import Lease

from .fields import BaseFencedModel, find_fence
from .querysets import FencedQuerySet
from .refusals import as_update_sees, check_instance, describe, lose_to_later_holder
from .rows import read_fences, writable_rows


class Save(NamedTuple):
    """The arguments of a running save() under a lease."""

    instance: models.Model
    lease: Lease
    may_insert: bool


# Not an attribute of the instance, which a signal's receiver may pickle.
_save: ContextVar[Save | None] = ContextVar("django_distlock_save", default=None)


class FencedModel(BaseFencedModel):
    """An abstract model with a `FenceField`: it refuses writes by a holder that lost the lock.

    A write without a lease is not checked, and never changes the fence of a stored row.
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
        """Save the object. With a lease, update the row only if no later holder has written it.

        An object that was read, and whose row is gone, is not inserted again.

        `LockLost`: a later holder has written the row, or the lease is known to be lost.
        `ValueError`: the lease is on another semaphore than the object or its row.
        """
        claim: AbstractContextManager[object] = nullcontext()
        if lease is not None:
            fence = find_fence(type(self))
            using = using or router.db_for_write(type(self), instance=self)
            with transaction.mark_for_rollback_on_error(using=using):
                check_instance(fence, self, lease)
                _, complete = writable_rows(fence, self._fenced_rows(using), lease)
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
        """See `save()`."""
        await sync_to_async(self.save)(
            lease=lease,
            force_insert=force_insert,
            force_update=force_update,
            using=using,
            update_fields=update_fields,
        )

    @contextmanager
    def _saving(self, save: Save | None) -> Iterator[None]:
        """Save in the block; if that fails, restore the object's fence."""
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
        """Claim the row before the block's first statement; keep it locked until the last one."""
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
            # The row's fence may be greater than the one in memory by now.
            values = [each for each in values if each[0] is not fence]
            if save:
                check_instance(fence, self, save.lease)  # again, after the receivers of pre_save
                values.append((fence, None, save.lease.token))
                rows, _ = writable_rows(fence, base_qs, save.lease)
                # Skip the SELECTs of select_on_save, which may see a row that is gone.
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
        """Insert one table's row: Django's save() calls this if there was none to update."""
        fence, save = find_fence(type(self)), self._own_save()
        if save and not save.may_insert:
            error = getattr(self, "NotUpdated", DatabaseError)  # NotUpdated is Django 6.0's
            raise error(f"{describe(self)} is not there any more, and is not inserted again.")
        if save and manager.model is fence.model:
            setattr(self, fence.attname, save.lease.token)
        return super()._do_insert(manager, *args)  # type: ignore[misc]

    def delete(
        self, using: str | None = None, keep_parents: bool = False, *, lease: Lease | None = None
    ) -> tuple[int, dict[str, int]]:
        """Delete; under a lease, only if no later holder has written the row. See save()."""
        if lease is None or self.pk is None:  # Django raises for an object without a key
            return super().delete(using, keep_parents)
        check_instance(find_fence(type(self)), self, lease)
        using = using or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using):
            # This locks the row until the rows that depend on it are deleted, too.
            if self._claim(using, lease):
                return super().delete(using, keep_parents)
        return 0, {}

    async def adelete(
        self, using: str | None = None, keep_parents: bool = False, *, lease: Lease | None = None
    ) -> tuple[int, dict[str, int]]:
        """See `delete()`."""
        return await sync_to_async(self.delete)(using, keep_parents, lease=lease)

    def _fenced_rows(self, using: str) -> models.QuerySet[Any]:
        """Return the object's row in the table that has the fence."""
        model = find_fence(type(self)).model
        return model._base_manager.using(using).filter(pk=getattr(self, model._meta.pk.attname))

    def _claim(self, using: str, lease: Lease) -> bool:
        """Set the row's fence, which locks it; return whether there is a row. See save()."""
        fence, rows = find_fence(type(self)), self._fenced_rows(using)
        writable, complete = writable_rows(fence, rows, lease)
        claimed = bool(writable.update(**{fence.name: lease.token}))
        if not (claimed and complete):
            self._refuse(rows, lease)
        return claimed

    def _refuse(self, rows: models.QuerySet[Any], lease: Lease) -> None:
        """Raise if the row belongs to another semaphore or was written later."""
        fence = find_fence(type(self))
        for _, token, semaphore in read_fences(fence, as_update_sees(rows), lease):
            if semaphore != lease.semaphore:
                raise ValueError(
                    f"The row of {describe(self)} belongs to {semaphore!r}, but the object and the "
                    f"lease belong to {lease.semaphore!r}."
                )
            if token > (lease.token or 0):
                raise lose_to_later_holder(lease, describe(self), token)

    @classmethod
    def check(cls, **kwargs: Any) -> list[checks.CheckMessage]:
        messages = super().check(**kwargs)
        try:
            find_fence(cls)
        except ImproperlyConfigured as error:
            hint = 'Write one field fence = FenceField("<pk>…") in the model.'
            messages.append(checks.Error(str(error), hint=hint, obj=cls, id="distlock.E002"))
        return messages
