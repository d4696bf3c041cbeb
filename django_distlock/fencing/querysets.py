"""FencedQuerySet: write many rows under a lease."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from django.db import models, transaction
from django.db.models import Q

from django_distlock.lease import Lease

from .fields import find_fence
from .refusals import as_update_sees, check_held, check_lease, check_token, lose_to_later_holder
from .rows import (
    having_semaphore,
    is_one_table,
    passing_fence,
    read_fences,
    values_for,
    writable_rows,
)

M = TypeVar("M", bound=models.Model)
N = TypeVar("N", bound=models.Model)

MYPY: Final = False
"""True to mypy, which learns about managers from its plugin for Django; others have to be told."""


class FencedQuerySet(models.QuerySet[M]):
    """A queryset whose rows can be updated and deleted under a lease: see `fenced()`."""

    _lease: Lease | None = None

    if TYPE_CHECKING and not MYPY:

        @classmethod
        def as_manager(cls) -> "FencedManager[M]": ...

    def fenced(self, lease: Lease) -> Self:
        """Return the same rows, to be written only if no later holder has written them.

        `update()` and `delete()` write all rows or none: ValueError if a row belongs to another
        semaphore than the lease's, LockLost if a later holder has written one.
        """
        check_lease(lease)
        check_token(lease)
        values_for(find_fence(self.model), lease.semaphore, self.model)
        return self._with_lease(lease)

    def _with_lease(self, lease: Lease | None) -> Self:
        clone = self.all()
        clone._lease = lease
        return clone

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        clone._lease = self._lease
        return clone

    def update(self, **kwargs: Any) -> int:
        """Update the rows. Under a lease, set their fence in the same statement.

        If Django needs several statements (conditions on other tables, multi-table inheritance),
        the first one sets the fence. That locks the rows until the last statement is done.
        """
        lease = self._lease
        if lease is None:
            return super().update(**kwargs)
        fence = find_fence(self.model)
        if fence.name in kwargs:
            raise ValueError(f"{fence.name} is set by the lease.")
        if changed := fence.changed_by(kwargs, self.model):
            raise ValueError(
                f"{changed} determines which lock a {self.model._meta.label} belongs to, by the "
                f"template {fence.template.text!r}, so fenced() doesn't update it. Hold the other "
                f"lock too, and move the rows by update(…, {fence.name}=…) with that lease's token."
            )
        with self._writing(lease) as rows:
            writable = rows.filter(self._writable(lease))
            if _is_one_statement(writable):
                updated = writable.update(**kwargs, **{fence.name: lease.token})
                self._refuse_others(lease)
            else:
                updated = self._claim(lease).update(**kwargs)
        return updated

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete the rows. Under a lease, first set their fence, which locks them."""
        lease = self._lease
        if lease is None:
            return super().delete()
        with self._writing(lease):
            return self._claim(lease).delete()

    delete.queryset_only = True  # type: ignore[attr-defined] # as Django's: not on managers

    @contextmanager
    def _writing(self, lease: Lease) -> Iterator[Self]:
        """Write all rows or none in the block; yield the rows without their lease."""
        check_held(lease, f"{self.model._meta.label}.objects.fenced(…)")
        self._for_write = True
        with transaction.atomic(using=self.db):
            yield self._with_lease(None)
        self._result_cache = None

    def _writable(self, lease: Lease) -> Q:
        """Return the condition that the lease may write a row."""
        fence = find_fence(self.model)
        return having_semaphore(fence, self, lease) & passing_fence(fence, lease)

    def _claim(self, lease: Lease) -> Self:
        """Set the fence of all rows, which locks them; return the rows without their lease."""
        fence = find_fence(self.model)
        rows, key = self._with_lease(None), _primary_key(fence.model).name
        keys = list(rows.filter(having_semaphore(fence, self, lease)).values_list(key, flat=True))
        claimed = fence.model._base_manager.using(self.db).filter(pk__in=keys)
        writable, _ = writable_rows(fence, claimed, lease)
        writable.update(**{fence.name: lease.token})
        self._refuse_others(lease)
        return rows.filter(**{f"{key}__in": keys})

    def _refuse_others(self, lease: Lease) -> None:
        """Raise if a row is left that belongs to another semaphore or was written later."""
        others = self._with_lease(None).exclude(self._writable(lease)).order_by()
        fences = read_fences(find_fence(self.model), as_update_sees(others)[:1], lease)
        for pk, token, semaphore in fences:
            subject = f"{self.model._meta.label} with pk {pk!r}"
            if semaphore == lease.semaphore:
                raise lose_to_later_holder(lease, subject, token)
            raise ValueError(
                f"{subject} belongs to {semaphore!r}, but the lease is on {lease.semaphore!r}."
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
                f"{method}() would not be fenced: an INSERT has no row yet whose fence could be "
                "compared. Call it without fenced()."
            )

    def _merge_sanity_check(self, other: models.QuerySet[Any]) -> None:
        """Refuse `&`, `|` and `^`: some of them would lose the lease."""
        if self._lease is not None or getattr(other, "_lease", None) is not None:
            raise TypeError("Combine the querysets first, then call fenced().")
        super()._merge_sanity_check(other)  # type: ignore[misc]


if TYPE_CHECKING and not MYPY:

    class FencedManager(models.Manager[M]):
        """What as_manager() returns."""

        def __get__(self, instance: None, model: type[N]) -> "FencedManager[N]": ...
        def fenced(self, lease: Lease) -> FencedQuerySet[M]: ...
        def get_queryset(self) -> FencedQuerySet[M]: ...
        def all(self) -> FencedQuerySet[M]: ...
        def none(self) -> FencedQuerySet[M]: ...
        def using(self, alias: str | None) -> FencedQuerySet[M]: ...
        def filter(self, *args: Any, **kwargs: Any) -> FencedQuerySet[M]: ...
        def exclude(self, *args: Any, **kwargs: Any) -> FencedQuerySet[M]: ...
        def order_by(self, *names: Any) -> FencedQuerySet[M]: ...


def _is_one_statement(rows: models.QuerySet[Any]) -> bool:
    """Return whether Django sends one UPDATE, with all conditions on the rows themselves.

    Otherwise the fence would be compared in a subquery, or before: a row that another holder writes
    in between would be overwritten.
    """
    concrete = rows.model._meta.concrete_model
    return is_one_table(rows) and not (concrete and concrete._meta.parents)


def _primary_key(model: type[models.Model]) -> "models.Field[Any, Any]":
    return model._meta.pk
