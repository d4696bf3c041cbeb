"""The database backend in the caller's transactions: guard commits, and join transactions."""

from django.db import Error
from django.db import connections as connections_by_alias
from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.backends.base import TransactionalStore
from django_distlock.records import Claim, RenewalOutcome
from django_distlock.runtime import is_in_testcase
from django_distlock.transactions import has_snapshots

from .base import BaseDatabaseBackend
from .connections import database_of
from .errors import RowLocked, is_read_only
from .statements import Statements, lease_parameters


class TransactionalDatabaseBackend(BaseDatabaseBackend, TransactionalStore):
    """Part of DatabaseBackend."""

    def caller(self) -> BaseDatabaseWrapper | None:
        return None if self._uses_own_connections() else connections_by_alias[self.using]

    def can_renew(self) -> bool:
        if self._may_have_own_connections:
            return self._uses_own_connections()
        caller = connections_by_alias[self.using]
        # Another thread can't see a row that isn't committed yet. On SQLite it waits for the
        # commit, which a test case never makes.
        return not caller.in_atomic_block or (
            caller.vendor == "sqlite" and not is_in_testcase(caller)
        )

    def guard(self, lease: Claim, using: str) -> bool | None:
        if using != self.using:
            return None
        caller = connections_by_alias[using]
        if not self._uses_own_connections():
            statements = self._on_caller()
        elif database_of(caller.settings_dict) == database_of(connections_by_alias.settings[using]):
            if has_snapshots(caller):
                return self.guard_by_renewal(lease)
            statements = self._complete_statements().on(caller)
        else:
            return None  # the site has switched the connection to another database, a tenant's say
        try:
            with caller.wrap_database_errors:
                return statements.guard(lease_parameters(lease))
        except Error as error:
            if is_read_only(caller.vendor, error):
                return True  # nothing was written under the lock
            raise

    def _complete_statements(self) -> Statements:
        """Return statements that can be sent on any connection to this database."""
        pool = self._own_connections()
        if pool.known is None:
            pool.known = self._run(lambda statements: statements)
        return pool.known

    def guard_by_renewal(self, lease: Claim) -> bool:
        """Renew the lease instead, for the whole ttl from now.

        A transaction with a snapshot can't lock the lease's row if that was renewed since it began.
        """
        outcome = self.renew([lease])[lease.owner].outcome
        if outcome is RenewalOutcome.HELD:
            raise self._error(RowLocked("another transaction has locked the lock's row"))
        return outcome is RenewalOutcome.RENEWED
