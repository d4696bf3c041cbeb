"""Every store keeps the contract."""

import importlib
import pkgutil
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import connections
from django.test import SimpleTestCase, TransactionTestCase

import django_distlock
from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.backends.database.statements import Statements
from django_distlock.handler import lock_backends
from django_distlock.testing import LockBackendContract
from tests.support.postgresql import start_pgbouncer


class ModestTests(LockBackendContract, SimpleTestCase):
    alias = "modest"

    def test_what_it_lacks_is_refused_or_empty(self) -> None:
        """Not passed over in silence."""
        with pytest.raises(ValueError, match="ModestBackend has no unlimited ttl"):
            self.backend.validate_ttl(None)
        self.assertEqual(list(self.backend.clear_stale()), [])
        self.assertEqual(list(self.backend.purge_released(timedelta(0))), [])
        self.assertEqual(self.backend.check(), [])


class MemoryTests(LockBackendContract, SimpleTestCase):
    alias = "memory"


class CommittedTestCase(TransactionTestCase):
    """Tidies up nothing but the locks."""

    available_apps = ["django_distlock"]


class SQLiteTests(LockBackendContract, CommittedTestCase):
    databases = {"default"}
    alias = "default"


class SQLiteORMTests(LockBackendContract, CommittedTestCase):
    databases = {"default"}
    alias = "orm"
    many = 50  # it renews one by one
    clock_tick = 0.018  # that of the coarsest clock is added


@pytest.mark.needs("postgresql")
class PostgreSQLTests(LockBackendContract, CommittedTestCase):
    databases = {"postgresql"}
    alias = "postgresql"


@pytest.mark.needs("postgresql")
class PostgreSQLORMTests(LockBackendContract, CommittedTestCase):
    databases = {"postgresql"}
    alias = "orm_postgresql"
    many = 50
    clock_tick = 0.018


@pytest.mark.needs("postgresql", "pgbouncer")
class PgBouncerTests(LockBackendContract, CommittedTestCase):
    """Each statement may get another session, and so may each transaction."""

    databases = {"postgresql"}
    alias = "postgresql"

    @classmethod
    def setUpClass(cls) -> None:
        settings = connections.settings["postgresql"]
        pooler = cls.enterClassContext(start_pgbouncer(settings))
        place = {key: pooler.settings[key] for key in ("HOST", "PORT")}
        cls.enterClassContext(mock.patch.dict(settings, place, DISABLE_SERVER_SIDE_CURSORS=True))
        connections["postgresql"].close()
        cls.addClassCleanup(connections["postgresql"].close)
        cls.addClassCleanup(close_own_connections)
        super().setUpClass()

    def test_it_is_in_between(self) -> None:
        """Or else the other tests show nothing."""
        with connections["postgresql"].cursor() as cursor:
            port = cursor.connection.info.port
        self.assertEqual(str(port), connections.settings["postgresql"]["PORT"])


@pytest.mark.needs("mariadb")
class MariaDBTests(LockBackendContract, CommittedTestCase):
    databases = {"mariadb"}
    alias = "mariadb"


@pytest.mark.needs("mariadb")
class MySQLTests(LockBackendContract, CommittedTestCase):
    databases = {"mariadb"}
    alias = "mysql"


@pytest.mark.needs("redis")
class DjangoRedisTests(LockBackendContract, SimpleTestCase):
    alias = "redis"


@pytest.mark.needs("redis")
class RedisCacheTests(LockBackendContract, SimpleTestCase):
    alias = "django_redis_cache"


@pytest.mark.needs("redis_cluster")
class RedisClusterTests(LockBackendContract, SimpleTestCase):
    alias = "redis_cluster"


@pytest.mark.needs("memcached")
class MemcachedTests(LockBackendContract, SimpleTestCase):
    alias = "memcached"
    clock_tick = 2.1  # it is asked for two seconds more, and looks at its clock once a second


@pytest.mark.needs("pylibmc")
class PyLibMCTests(LockBackendContract, SimpleTestCase):
    alias = "pylibmc"
    clock_tick = 2.1


@pytest.mark.needs("lock_server")
class ServerTests(LockBackendContract, SimpleTestCase):
    alias = "lock_server"


@pytest.mark.needs("lock_server_unix")
class UnixServerTests(LockBackendContract, SimpleTestCase):
    alias = "lock_server_unix"


@pytest.mark.needs("lock_server_tls")
class TLSServerTests(LockBackendContract, SimpleTestCase):
    alias = "lock_server_tls"


def shipped(base: type) -> set[type]:
    """Return the subclasses that the package has, in whatever module of it."""
    for module in pkgutil.walk_packages(django_distlock.__path__, "django_distlock."):
        importlib.import_module(module.name)
    classes: list[type] = [base]
    for each in classes:  # grows while it is read
        classes += each.__subclasses__()
    return {each for each in classes[1:] if each.__module__.startswith("django_distlock.")}


@pytest.mark.needs("memcached")
def test_every_shipped_backend_has_its_contract_tests(settings: Any) -> None:
    """A store, or a database's statements, without them is not shipped."""
    tests = [
        test
        for test in LockBackendContract.__subclasses__()
        if test.alias in settings.DISTLOCK  # all, where the servers are installed
    ]
    backends = [type(lock_backends[test.alias]) for test in tests]
    tested = {base for backend in backends for base in backend.__mro__}
    assert shipped(BaseLockBackend) <= tested


@pytest.mark.needs("postgresql", "mariadb")
@pytest.mark.django_db(databases="__all__")
def test_every_databases_statements_have_their_contract_tests(settings: Any) -> None:
    """Each is what some tested alias uses."""
    used = set()
    for alias in {test.alias for test in LockBackendContract.__subclasses__()}:
        backend = lock_backends[alias] if alias in settings.DISTLOCK else None
        if isinstance(backend, DatabaseBackend):
            used.add(type(backend.statements(connections[backend.using])))
    assert shipped(Statements) == used
