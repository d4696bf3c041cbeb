"""Every store keeps the contract."""

import importlib
import pkgutil
import unittest
from datetime import timedelta
from typing import Any, ClassVar
from unittest import mock

import pytest
from django.db import connections
from django.test import SimpleTestCase, TransactionTestCase
from django.utils.module_loading import import_string

from django_distlock import backends
from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.backends.database.statements import Statements
from django_distlock.backends.operations import ListingStore
from django_distlock.conf import lock_backends
from django_distlock.contract import LockBackendContract
from tests.support.postgresql import start_pgbouncer

CONTRACT = {*unittest.TestLoader().getTestCaseNames(LockBackendContract)}
SMOKE = {
    "test_acquire_lock_and_release_lock",
    "test_async_twins",
    "test_different_semaphores_are_different_locks",
    "test_expired_owner_can_neither_release_nor_renew_and_its_successor_is_untouched",
    "test_force_release_takes_away_only_the_grant_that_was_seen",
    "test_held_lists_held_and_stale_locks_in_order",
    "test_held_semaphore_is_granted_to_nobody_else",
    "test_lease_is_renewed_in_the_background",
    "test_many_leases_are_renewed_at_once",
    "test_one_of_many_threads_gets_a_semaphore",
    "test_pages_follow_each_other_in_the_order_of_the_semaphores",
    "test_pause_refuses_new_grants_and_says_why",
    "test_pauses_are_listed_in_the_order_of_their_prefixes",
    "test_released_lock_goes_to_those_who_wait",
    "test_tokens_rise_across_release_expiry_and_force_release",
    "test_waiters_are_listed_in_turn",
}


class Smoke(LockBackendContract):
    """The part of the contract for a store that differs from another only by its connections.

    It checks that each kind of request and answer is understood.
    """


for name in CONTRACT - SMOKE:
    setattr(Smoke, name, None)  # unittest ignores attributes that can't be called


def test_smoke_is_a_part_of_the_contract() -> None:
    """Otherwise a renamed test would be left out."""
    assert SMOKE < CONTRACT
    assert {*unittest.TestLoader().getTestCaseNames(Smoke)} == SMOKE


@pytest.mark.once
class MinimalTests(LockBackendContract, SimpleTestCase):
    alias = "minimal"

    def test_missing_capabilities_are_refused_or_empty(self) -> None:
        """An unsupported argument is never ignored."""
        with pytest.raises(ValueError, match="MinimalBackend has no unlimited ttl"):
            self.backend.validate_ttl(None)
        self.assertEqual(list(self.backend.clear_stale()), [])
        self.assertEqual(list(self.backend.purge_released(timedelta(0))), [])
        self.assertEqual(self.backend.check(), [])


class SharedStoreTestCase(SimpleTestCase):
    """After a test, none of its locks is left in a store that other tests use, too."""

    alias: ClassVar[str]

    def tearDown(self) -> None:
        store = lock_backends[self.alias]
        if isinstance(store, ListingStore):
            for lock in [*store.held(f"{type(self).__name__}:")]:
                store.force_release(lock.semaphore, lock.token or 0)
        super().tearDown()


class MemoryTests(LockBackendContract, SharedStoreTestCase):
    alias = "memory"


class CommittedTestCase(TransactionTestCase):
    """Only the locks are deleted after a test."""

    available_apps = ["django_distlock"]


class SQLiteTests(LockBackendContract, CommittedTestCase):
    databases = {"default"}
    alias = "default"


class SQLiteORMTests(LockBackendContract, CommittedTestCase):
    databases = {"default"}
    alias = "orm"
    many = 50  # it renews leases one by one
    clock_tick = 0.018  # plus the step of the coarsest clock


@pytest.mark.needs("postgresql")
class PostgreSQLTests(LockBackendContract, CommittedTestCase):
    databases = {"postgresql"}
    alias = "postgresql"


@pytest.mark.once
@pytest.mark.needs("postgresql")
class PostgreSQLORMTests(LockBackendContract, CommittedTestCase):
    databases = {"postgresql"}
    alias = "orm_postgresql"
    many = 50
    clock_tick = 0.018


@pytest.mark.once
@pytest.mark.needs("postgresql", "pgbouncer")
class PgBouncerTests(LockBackendContract, CommittedTestCase):
    """Each statement and each transaction may get another session.

    So no statement is prepared, and waiters poll.
    """

    databases = {"postgresql"}
    alias = "postgresql"
    many = 50  # the same statement renews them as without the pooler

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
        """Otherwise the other tests would prove nothing."""
        with connections["postgresql"].cursor() as cursor:
            port = cursor.connection.info.port
        self.assertEqual(str(port), connections.settings["postgresql"]["PORT"])


@pytest.mark.needs("mariadb")
class MariaDBTests(LockBackendContract, CommittedTestCase):
    databases = {"mariadb"}
    alias = "mariadb"


@pytest.mark.once
@pytest.mark.needs("mariadb")
class MySQLTests(LockBackendContract, CommittedTestCase):
    databases = {"mariadb"}
    alias = "mysql"
    many = 50  # in batches, as on MariaDB


@pytest.mark.needs("redis")
class DjangoRedisTests(LockBackendContract, SharedStoreTestCase):
    alias = "redis"


@pytest.mark.needs("redis")
class RedisCacheTests(Smoke, SharedStoreTestCase):
    alias = "django_redis_cache"


@pytest.mark.once
@pytest.mark.needs("redis_cluster")
class RedisClusterTests(LockBackendContract, SharedStoreTestCase):
    alias = "redis_cluster"


@pytest.mark.once
@pytest.mark.needs("memcached")
class MemcachedTests(LockBackendContract, SimpleTestCase):
    alias = "memcached"
    clock_tick = 2.1  # it keeps a key two seconds longer, and reads its clock once a second


@pytest.mark.needs("lock_server")
class ServerTests(LockBackendContract, SharedStoreTestCase):
    alias = "lock_server"


@pytest.mark.once
@pytest.mark.needs("lock_server_unix")
class UnixServerTests(Smoke, SharedStoreTestCase):
    alias = "lock_server_unix"


@pytest.mark.needs("lock_server_tls")
class TLSServerTests(Smoke, SharedStoreTestCase):
    alias = "lock_server_tls"


def shipped(base: type) -> set[type]:
    """Return the subclasses in the room of stores."""
    for module in pkgutil.walk_packages(backends.__path__, f"{backends.__name__}."):
        importlib.import_module(module.name)
    classes: list[type] = [base]
    for each in classes:  # grows while it is read
        classes += each.__subclasses__()
    return {each for each in classes[1:] if each.__module__.startswith(f"{backends.__name__}.")}


def fully_tested(settings: Any) -> dict[str, type[BaseLockBackend]]:
    """Return the configured stores that run all tests of the contract."""
    aliases = {test.alias for test in LockBackendContract.__subclasses__() if test is not Smoke}
    configured = settings.DISTLOCK.items()
    return {alias: import_string(one["BACKEND"]) for alias, one in configured if alias in aliases}


@pytest.mark.once
@pytest.mark.needs("redis", "memcached")
def test_every_shipped_backend_has_its_contract_tests(settings: Any) -> None:
    """No store, and no database's statements, may be shipped without contract tests."""
    tested = {base for backend in fully_tested(settings).values() for base in backend.__mro__}
    assert shipped(BaseLockBackend) <= tested


@pytest.mark.once
@pytest.mark.needs("postgresql", "mariadb")
@pytest.mark.django_db(databases="__all__")
def test_every_databases_statements_have_their_contract_tests(settings: Any) -> None:
    """Each class is used by some tested alias, or is a base of such a class."""
    used: set[type] = set()
    for alias, backend in fully_tested(settings).items():
        if issubclass(backend, DatabaseBackend):
            store: Any = lock_backends[alias]
            used |= {*type(backend.statements(connections[store.using])).__mro__}
    assert shipped(Statements) <= used
