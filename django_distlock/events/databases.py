"""The database that keeps a store's events."""

from django.db import router

from django_distlock.conf import lock_backends
from django_distlock.models import LockEvent


def database_of(backend: str, *, for_write: bool = False) -> str:
    """Return the alias: a database store's own, else the one that the router gives."""
    using = lock_backends[backend].events_using
    if using is not None:
        return using
    return router.db_for_write(LockEvent) if for_write else router.db_for_read(LockEvent)
