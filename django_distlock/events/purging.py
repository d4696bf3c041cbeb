"""The deletion of old events."""

from datetime import UTC, datetime, timedelta
from typing import Final

from django_distlock.models import LockEvent
from django_distlock.semaphores.validation import first_after

from .databases import database_to_write

BATCH: Final = 1_000
"""How many rows a statement deletes, so that no transaction is long."""


def purge_events(
    backend: str, older_than: timedelta, prefix: str = "", *, dry_run: bool = False
) -> int:
    """Delete the store's events that are older, by this host's clock; return how many.

    Those of semaphores that begin with the prefix, in batches. `dry_run` only counts them.
    """
    using = database_to_write(backend)
    end = datetime.now(UTC) - older_than
    old = LockEvent.objects.using(using).filter(backend=backend, at__lt=end)
    if prefix:
        old = old.filter(semaphore__gte=prefix)
        if after := first_after(prefix):
            old = old.filter(semaphore__lt=after)
    if dry_run:
        return old.count()
    deleted = 0
    while ids := list(old.order_by("at").values_list("id", flat=True)[:BATCH]):
        deleted += LockEvent.objects.using(using).filter(id__in=ids).delete()[0]
    return deleted
