"""A user's own tests see plain, immediate behaviour, and leave nothing behind."""

import pytest
from django.db import connections, transaction
from django.test import Client, TestCase, TransactionTestCase

from django_distlock import (
    aacquire_lock,
    acquire_lock,
    arelease_lock,
    distributed_lock,
    release_lock,
    threads,
)
from django_distlock.backends.database import connections as own
from django_distlock.models import Lock


class InTestCase(TestCase):
    """Everything happens in the test's transaction."""

    databases = "__all__"

    def test_locks_work_and_are_rolled_back_with_the_test(self) -> None:
        """On the test's own connection, so no lock of another test is in the way."""
        own.close_own_connections()
        for alias in connections:
            with self.subTest(alias):
                self.assertFalse(Lock.objects.using(alias).exists())
                self.assertTrue(acquire_lock("a", backend=alias))
                self.assertIsNone(acquire_lock("a", backend=alias))
                self.assertTrue(Lock.objects.using(alias).held().filter(pk="a").exists())
                self.assertTrue(release_lock("a", backend=alias))
                with distributed_lock("a", backend=alias):
                    pass
                self.assertTrue(acquire_lock("a", backend=alias))
        self.assertFalse(any(each._opened for pool in own._pools.values() for each in pool.all))

    test_again_with_nothing_left = test_locks_work_and_are_rolled_back_with_the_test

    async def test_async_code_is_part_of_it(self) -> None:
        """Its calls go to the thread that has the test's connections."""
        for alias in connections:
            with self.subTest(alias):
                async with distributed_lock("a", backend=alias) as lease:
                    self.assertIsNone(await aacquire_lock("a", backend=alias))
                    await lease.arenew()
                self.assertTrue(await aacquire_lock("a", backend=alias))
                self.assertTrue(await arelease_lock("a", backend=alias))
        self.assertFalse(threads.executors)

    def test_views_release_at_once(self) -> None:
        """Also under ATOMIC_REQUESTS, on a single method, within the test's transaction."""
        for alias in connections:
            with self.subTest(alias):
                connections.settings["default"]["ATOMIC_REQUESTS"] = True
                try:
                    for path in ("collect", "method", "dispatch"):
                        for _ in range(2):
                            self.assertEqual(Client().get(f"/{path}/1/").status_code, 200)
                finally:
                    connections.settings["default"]["ATOMIC_REQUESTS"] = False

    def test_transactions_of_the_tested_code_change_nothing(self) -> None:
        """A lock that is released in atomic() is free at once, and calls nothing back."""
        for alias in connections:
            with self.subTest(alias):
                with (
                    self.captureOnCommitCallbacks(using=alias, execute=True) as callbacks,
                    transaction.atomic(using=alias),
                ):
                    transaction.on_commit(lambda: None, using=alias)
                    for _ in range(2):
                        with distributed_lock("a", backend=alias):
                            pass
                    self.assertTrue(acquire_lock("a", backend=alias))
                    self.assertTrue(release_lock("a", backend=alias))
                    self.assertFalse(Lock.objects.using(alias).held().exists())
                self.assertEqual(len(callbacks), 1)


class InTransactionTestCase(TransactionTestCase):
    """What is committed is flushed by Django."""

    databases = "__all__"

    def test_locks_work_and_are_flushed_after_the_test(self) -> None:
        """As any table."""
        for alias in connections:
            with self.subTest(alias):
                self.assertFalse(Lock.objects.using(alias).exists())
                self.assertTrue(acquire_lock("a", backend=alias))
                self.assertIsNone(acquire_lock("a", backend=alias))

    test_again_with_nothing_left = test_locks_work_and_are_flushed_after_the_test


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("time", ["first", "second"])
def test_pytest_djangos_db_fixture_rolls_locks_back(time: str) -> None:
    """As a TestCase."""
    assert not Lock.objects.exists()
    assert acquire_lock("a")
    assert acquire_lock("a") is None
