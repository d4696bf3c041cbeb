"""Every store keeps the contract."""

import pytest
from django.test import TransactionTestCase

from django_distlock.testing import LockBackendContract


class SQLiteTests(LockBackendContract, TransactionTestCase):
    databases = {"default"}
    alias = "default"


class SQLiteORMTests(LockBackendContract, TransactionTestCase):
    databases = {"default"}
    alias = "orm"


@pytest.mark.needs("postgresql")
class PostgreSQLTests(LockBackendContract, TransactionTestCase):
    databases = {"postgresql"}
    alias = "postgresql"


@pytest.mark.needs("postgresql")
class PostgreSQLORMTests(LockBackendContract, TransactionTestCase):
    databases = {"postgresql"}
    alias = "orm_postgresql"


@pytest.mark.needs("mariadb")
class MariaDBTests(LockBackendContract, TransactionTestCase):
    databases = {"mariadb"}
    alias = "mariadb"


@pytest.mark.needs("mariadb")
class MySQLTests(LockBackendContract, TransactionTestCase):
    databases = {"mariadb"}
    alias = "mysql"
