"""A user's own tests see plain, immediate behaviour, and leave nothing behind."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.backends.signals import connection_created
from django.test import Client, TestCase, TransactionTestCase

from django_distlock import (
    aacquire_lock,
    acquire_lock,
    arelease_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.models import Lock
from tests.support.visits import atomic_requests

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object

LOCK = "1234collectPayment"


class InTestCase(Base):
    """Everything happens in the test's transaction."""

    def test_locks_work_and_are_rolled_back_with_the_test(self) -> None:
        """On the test's own connection, so no lock of another test interferes."""
        close_own_connections()
        opened = mock.Mock()
        connection_created.connect(opened)
        self.addCleanup(connection_created.disconnect, opened)
        for alias in self.databases:
            with self.subTest(alias):
                self.assertFalse(Lock.objects.using(alias).exists())
                self.assertTrue(acquire_lock(LOCK, backend=alias))
                self.assertIsNone(acquire_lock(LOCK, backend=alias))
                self.assertTrue(Lock.objects.using(alias).held().filter(pk=LOCK).exists())
                self.assertTrue(release_lock(LOCK, backend=alias))
                with distributed_lock(LOCK, backend=alias):
                    pass
                self.assertTrue(acquire_lock(LOCK, backend=alias))
        opened.assert_not_called()

    test_again_with_nothing_left = test_locks_work_and_are_rolled_back_with_the_test

    async def test_async_code_is_part_of_it(self) -> None:
        """Its calls go to the thread that has the test's connections."""
        here = await sync_to_async(threading.get_ident)()
        for alias in self.databases:
            with self.subTest(alias):
                store = type(lock_backends[alias])
                asked_in: list[int] = []

                def acquire(*args: Any, acquire: Any = store.acquire) -> Any:
                    asked_in.append(threading.get_ident())  # noqa: B023 - called in this round
                    return acquire(*args)

                with mock.patch.object(store, "acquire", acquire):
                    async with distributed_lock(LOCK, backend=alias) as lease:
                        self.assertIsNone(await aacquire_lock(LOCK, backend=alias))
                        await lease.arenew()
                    self.assertTrue(await aacquire_lock(LOCK, backend=alias))
                    self.assertTrue(await arelease_lock(LOCK, backend=alias))
                self.assertEqual(asked_in, [here] * 3)

    def test_transactions_of_the_tested_code_change_nothing(self) -> None:
        """A lock released in atomic() is free at once, without callbacks."""
        for alias in self.databases:
            with self.subTest(alias):
                with (
                    self.captureOnCommitCallbacks(using=alias, execute=True) as callbacks,
                    transaction.atomic(using=alias),
                ):
                    transaction.on_commit(lambda: None, using=alias)
                    for _ in range(2):
                        with distributed_lock(LOCK, backend=alias):
                            pass
                    self.assertTrue(acquire_lock(LOCK, backend=alias))
                    self.assertTrue(release_lock(LOCK, backend=alias))
                    self.assertFalse(Lock.objects.using(alias).held().exists())
                self.assertEqual(len(callbacks), 1)


class OnSQLite(InTestCase, TestCase):
    databases = {"default", "locks"}

    def test_views_release_at_once(self) -> None:
        """Also under ATOMIC_REQUESTS, on a single method, within the test's transaction."""
        with atomic_requests("default"):
            for path in ("collect", "method", "dispatch"):
                for _ in range(2):
                    self.assertEqual(Client().get(f"/{path}/1/").status_code, 200)


@pytest.mark.needs("postgresql")
class OnPostgreSQL(InTestCase, TestCase):
    databases = {"postgresql"}


@pytest.mark.needs("mariadb")
class OnMariaDB(InTestCase, TestCase):
    databases = {"mariadb"}


class InTransactionTestCase(Base):
    """Django flushes committed rows."""

    def test_locks_work_and_are_flushed_after_the_test(self) -> None:
        """Like any table."""
        for alias in self.databases:
            with self.subTest(alias):
                self.assertFalse(Lock.objects.using(alias).exists())
                self.assertTrue(acquire_lock(LOCK, backend=alias))
                self.assertIsNone(acquire_lock(LOCK, backend=alias))

    test_again_with_nothing_left = test_locks_work_and_are_flushed_after_the_test


class CommittedOnSQLite(InTransactionTestCase, TransactionTestCase):
    databases = {"default", "locks"}


@pytest.mark.needs("postgresql")
class CommittedOnPostgreSQL(InTransactionTestCase, TransactionTestCase):
    databases = {"postgresql"}


@pytest.mark.needs("mariadb")
class CommittedOnMariaDB(InTransactionTestCase, TransactionTestCase):
    databases = {"mariadb"}


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("time", ["first", "second"])
def test_pytest_djangos_db_fixture_rolls_locks_back(time: str) -> None:
    """Like a TestCase."""
    assert not Lock.objects.exists()
    assert acquire_lock(LOCK)
    assert acquire_lock(LOCK) is None
