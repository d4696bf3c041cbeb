"""The database that keeps a store's events: a database store's own, else the router's choice."""

from django.db import router

from django_distlock.conf import lock_backends
from django_distlock.models import LockEvent


def database_to_read(backend: str) -> str:
    """Return the alias of the database to read the store's events from."""
    return lock_backends[backend].events_using or router.db_for_read(LockEvent)


def database_to_write(backend: str) -> str:
    """Return the alias of the database to write the store's events to."""
    return lock_backends[backend].events_using or router.db_for_write(LockEvent)
