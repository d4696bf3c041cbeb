"""A third party's store; and the database backend as it works on databases that the tests lack."""

import json
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.database.mysql import MySQLStatements
from django_distlock.backends.database.orm import ORMStatements
from django_distlock.backends.database.statements import Statements
from django_distlock.fields import to_microseconds
from django_distlock.models import Lock
from django_distlock.records import (
    LOST,
    REFUSED,
    Claim,
    Grant,
    Refusal,
    Released,
    Renewal,
    RenewalOutcome,
)


class MinimalBackend(BaseLockBackend):
    """A third party's store with no optional capability: a dict in this process."""

    supports_fencing = True

    rows: ClassVar[dict[str, tuple[str, Grant]]] = {}
    one_at_a_time: ClassVar[threading.Lock] = threading.Lock()

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        with self.one_at_a_time:
            now = datetime.now(UTC)
            other, grant = self.rows.get(semaphore, ("", Grant(0, now, now)))
            assert grant.expires_at is not None
            assert grant.token is not None
            if other != owner and grant.expires_at > now:
                return REFUSED
            token = grant.token if other == owner else max(grant.token + 1, to_microseconds(now))
            granted = Grant(token, now, now + timedelta(seconds=ttl or 0))
            self.rows[semaphore] = owner, granted
            return granted

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        return {
            lease.owner: (
                Renewal(RenewalOutcome.RENEWED, self._end(lease, lease.ttl))
                if self._owned(lease)
                else LOST
            )
            for lease in leases
        }

    def release(self, lease: Claim, keep: float = 0) -> Released:
        with self.one_at_a_time:
            if not self._owned(lease):
                return Released.NOT_HELD
            self._end(lease, keep)
            self.rows[lease.semaphore] = "", self.rows[lease.semaphore][1]
            return Released.FREED

    def _owned(self, lease: Claim) -> bool:
        now = datetime.now(UTC)
        owner, grant = self.rows.get(lease.semaphore, ("", Grant(0, now, now)))
        return owner == lease.owner and grant.expires_at is not None and grant.expires_at > now

    def _end(self, lease: Claim, ttl: float | None) -> datetime:
        _, grant = self.rows[lease.semaphore]
        end = datetime.now(UTC) + timedelta(seconds=ttl or 0)
        self.rows[lease.semaphore] = lease.owner, grant._replace(expires_at=end)
        return end


class HangingBackend(MinimalBackend):
    """A store that answers no renewal until the test sets an event."""

    may_go_on: ClassVar[threading.Event] = threading.Event()

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        self.may_go_on.wait(60)
        return super().renew(leases)


class ORMBackend(DatabaseBackend):
    """Any other database."""

    own_connection_vendors = frozenset()

    @classmethod
    def statements(cls, connection: BaseDatabaseWrapper) -> Statements:
        return ORMStatements(connection, Lock._meta.db_table)


class MySQLBackend(DatabaseBackend):
    """MySQL, which has no RETURNING."""

    @classmethod
    def statements(cls, connection: BaseDatabaseWrapper) -> Statements:
        return MySQLStatements(connection, connection.ops.quote_name(Lock._meta.db_table))


def redis_cluster() -> Any:
    """Return a client of the cluster that tests/support/plugin.py has started."""
    from redis import RedisCluster

    server = json.loads(os.environ["DISTLOCK_TEST_REDIS_CLUSTER"])
    return RedisCluster(host=server["HOST"], port=int(server["PORT"]))
