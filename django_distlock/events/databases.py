"""The database that keeps a store's events: a database store's own, else the router's choice."""

from typing import NamedTuple

from django.db import connections, router

from django_distlock.conf import lock_backends
from django_distlock.models import LockEvent


def database_to_read(backend: str) -> str:
    """Return the alias of the database to read the store's events from."""
    return lock_backends[backend].events_using or router.db_for_read(LockEvent)


class Place(NamedTuple):
    """The database to write an event to."""

    using: str
    name: str

    def is_current(self) -> bool:
        """Tell whether the alias still leads there: a test's database has another name."""
        return self.using in connections.settings and self == Place.of(self.using)

    @classmethod
    def of(cls, using: str) -> "Place":
        """Return the database that the alias leads to."""
        return cls(using, str(connections.settings[using]["NAME"]))


def database_to_write(backend: str) -> str:
    """Return the alias of the database to write the store's events to."""
    return lock_backends[backend].events_using or router.db_for_write(LockEvent)
