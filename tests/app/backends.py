"""Ways that the database backend takes on databases which aren't here."""

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.database.mysql import MySQLStatements
from django_distlock.backends.database.orm import ORMStatements
from django_distlock.backends.database.statements import Statements
from django_distlock.models import Lock


class ORMBackend(DatabaseBackend):
    """Any other database."""

    own_connection_vendors = frozenset()

    def statements(self, connection: BaseDatabaseWrapper) -> Statements:
        return ORMStatements(connection, Lock._meta.db_table)


class MySQLBackend(DatabaseBackend):
    """MySQL, which has no RETURNING."""

    def statements(self, connection: BaseDatabaseWrapper) -> Statements:
        return MySQLStatements(connection, connection.ops.quote_name(Lock._meta.db_table))
