"""Write many rows under a lease."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from django.db import models, transaction
from django.db.models import Q

from django_distlock.leases.lease import Lease

from .fields import find_fence, is_one_table
from .refusals import as_it_is, check_held, check_lease, check_token, refuse

M = TypeVar("M", bound=models.Model)


class FencedQuerySet(models.QuerySet[M]):
    """Rows that can be updated and deleted under a lease: see fenced()."""

    _lease: Lease | None = None

    def fenced(self, lease: Lease) -> Self:
        """Return the same rows, written from now on only if no later holder has written them.

        `update()` and `delete()` write all or nothing: ValueError if a row belongs to another
        semaphore than the lease, LockLost if a later holder has written one.
        """
        check_lease(lease)
        check_token(lease)
        find_fence(self.model).values_in(lease.semaphore, self.model)
        return self._under(lease)

    def _under(self, lease: Lease | None) -> Self:
        clone = self.all()
        clone._lease = lease
        return clone

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        clone._lease = self._lease
        return clone

    def update(self, **kwargs: Any) -> int:
        """Update the rows; under a lease, set their fence in the same statement.

        Where Django needs several statements (conditions on other tables, multi-table
        inheritance), the first one sets the fence, and so locks the rows until the others are done.
        """
        lease = self._lease
        if lease is None:
            return super().update(**kwargs)
        fence = find_fence(self.model)
        if fence.name in kwargs:
            raise ValueError(f"{fence.name} is set by the lease.")
        if moved := fence.moved_by(kwargs, self.model):
            raise ValueError(
                f"{moved} tells which lock a {self.model._meta.label} belongs to, by the template "
                f"{fence.template.text!r}, so fenced() doesn't update it. Hold the other lock too, "
                f"and move the rows by an update(…, {fence.name}=…) with that lease's token."
            )
        with self._writing(lease) as rows:
            mine = rows.filter(self._belonging(lease), fence.passed(lease))
            if _is_one_statement(mine):
                updated = mine.update(**kwargs, **{fence.name: lease.token})
                self._refuse_others(lease)
            else:
                updated = self._claim(lease).update(**kwargs)
        return updated

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete the rows; under a lease, set their fence first, which locks them."""
        lease = self._lease
        if lease is None:
            return super().delete()
        with self._writing(lease):
            return self._claim(lease).delete()

    delete.queryset_only = True  # type: ignore[attr-defined] # as Django's: no manager has it

    @contextmanager
    def _writing(self, lease: Lease) -> Iterator[Self]:
        """Write all or nothing; yield the rows without their lease."""
        check_held(lease, f"{self.model._meta.label}.objects.fenced(…)")
        self._for_write = True
        with transaction.atomic(using=self.db):
            yield self._under(None)
        self._result_cache = None

    def _belonging(self, lease: Lease) -> Q:
        """Return the condition that a row belongs to the lease's semaphore."""
        return find_fence(self.model).belonging(lease, self)

    def _claim(self, lease: Lease) -> Self:
        """Set the fence of all rows, which locks them until the end; return them, unfenced."""
        fence = find_fence(self.model)
        rows, key = self._under(None), _primary_key(fence.model).name
        keys = list(rows.filter(self._belonging(lease)).values_list(key, flat=True))
        claimed = fence.model._base_manager.using(self.db).filter(pk__in=keys)
        mine, _ = fence.writable(claimed, lease)
        mine.update(**{fence.name: lease.token})
        self._refuse_others(lease)
        return rows.filter(**{f"{key}__in": keys})

    def _refuse_others(self, lease: Lease) -> None:
        """Raise if a row was left out, since it is another semaphore's or was written later."""
        fence = find_fence(self.model)
        allowed = self._belonging(lease) & fence.passed(lease)
        others = as_it_is(self._under(None).exclude(allowed).order_by())
        for pk, token, semaphore in fence.read(others[:1], lease):
            what = f"{self.model._meta.label} with pk {pk!r}"
            if semaphore == lease.semaphore:
                raise refuse(lease, what, token)
            raise ValueError(
                f"{what} belongs to {semaphore!r}, but the lease is on {lease.semaphore!r}."
            )

    def create(self, **kwargs: Any) -> M:
        self._refuse_inserts("create")
        return super().create(**kwargs)

    def bulk_create(self, *args: Any, **kwargs: Any) -> list[M]:
        self._refuse_inserts("bulk_create")
        return super().bulk_create(*args, **kwargs)

    def get_or_create(self, *args: Any, **kwargs: Any) -> tuple[M, bool]:
        self._refuse_inserts("get_or_create")
        return super().get_or_create(*args, **kwargs)

    def update_or_create(self, *args: Any, **kwargs: Any) -> tuple[M, bool]:
        self._refuse_inserts("update_or_create")
        return super().update_or_create(*args, **kwargs)

    def _refuse_inserts(self, method: str) -> None:
        if self._lease is not None:
            raise TypeError(
                f"{method}() would not be fenced: an INSERT has no row whose fence could be looked "
                "at. Call it without fenced()."
            )

    def _merge_sanity_check(self, other: models.QuerySet[Any]) -> None:
        """Refuse `&`, `|` and `^`, some of which would forget the lease."""
        if self._lease is not None or getattr(other, "_lease", None) is not None:
            raise TypeError("Combine the querysets first, then call fenced().")
        super()._merge_sanity_check(other)  # type: ignore[misc]


def _is_one_statement(rows: models.QuerySet[Any]) -> bool:
    """Tell whether Django makes one UPDATE of it, with all conditions on the rows themselves.

    Otherwise the fence would be looked at in a subquery or before: a row that is written meanwhile
    would be overwritten.
    """
    concrete = rows.model._meta.concrete_model
    return is_one_table(rows) and not (concrete and concrete._meta.parents)


def _primary_key(model: type[models.Model]) -> "models.Field[Any, Any]":
    return model._meta.pk
