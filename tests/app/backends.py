"""A third party's store; and ways that the database backend takes where we have no server."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.backends.base import BaseLockBackend, Claim, Grant
from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.database.mysql import MySQLStatements
from django_distlock.backends.database.orm import ORMStatements
from django_distlock.backends.database.statements import Statements
from django_distlock.models import Lock


class ModestBackend(BaseLockBackend):
    """A third party's store that can do the least: a dict of this process."""

    supports_fencing = False
    supports_listing = False
    supports_unlimited_ttl = False

    held_by: ClassVar[dict[str, tuple[str, datetime]]] = {}
    one_at_a_time: ClassVar[threading.Lock] = threading.Lock()

    def acquire(self, semaphore: str, owner: str, ttl: float | None, holder: str) -> Grant | None:
        with self.one_at_a_time:
            now = datetime.now(UTC)
            other, end = self.held_by.get(semaphore, ("", now))
            if other != owner and end > now:
                return None
            self.held_by[semaphore] = owner, now + timedelta(seconds=ttl or 0)
            return Grant(None, now, now + timedelta(seconds=ttl or 0))

    def renew(self, leases: Sequence[Claim]) -> dict[str, datetime | None]:
        with self.one_at_a_time:
            ends: dict[str, datetime | None] = {}
            for lease in filter(self._owned, leases):
                end = datetime.now(UTC) + timedelta(seconds=lease.ttl or 0)
                self.held_by[lease.semaphore] = lease.owner, end
                ends[lease.owner] = end
            return ends

    def release(self, lease: Claim) -> bool:
        with self.one_at_a_time:
            owned = self._owned(lease)
            if owned:
                del self.held_by[lease.semaphore]
            return owned

    def _owned(self, lease: Claim) -> bool:
        owner, end = self.held_by.get(lease.semaphore, ("", datetime.now(UTC)))
        return owner == lease.owner and end > datetime.now(UTC)


class ORMBackend(DatabaseBackend):
    """Any other database."""

    own_connection_vendors = frozenset()

    def statements(self, connection: BaseDatabaseWrapper) -> Statements:
        return ORMStatements(connection, Lock._meta.db_table)


class MySQLBackend(DatabaseBackend):
    """MySQL, which has no RETURNING."""

    def statements(self, connection: BaseDatabaseWrapper) -> Statements:
        return MySQLStatements(connection, connection.ops.quote_name(Lock._meta.db_table))
