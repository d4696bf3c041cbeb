"""The test kit on real stores in a TestCase, whose transaction the locks' rows are part of."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import TestCase

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
)
from django_distlock.records import LockState
from django_distlock.test import aexpire, alose, expire, held_elsewhere, lose, store_down
from tests.app.models import Counter
from tests.support.holders import acquire, states
from tests.support.visits import atomic_requests, visit

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object

pytestmark = pytest.mark.once

LOCK = "1234collectPayment"


class InTestCase(Base):
    """Whatever the kit does is rolled back with the test."""

    using: str

    def test_lock_is_held_elsewhere(self) -> None:
        with held_elsewhere(LOCK, backend=self.using):
            self.assertIsNone(acquire_lock(LOCK, backend=self.using, timeout=200))
        with held_elsewhere(LOCK, backend=self.using, release_after=3):
            self.assertEqual(round(acquire(self.using, timeout=20).waited), 3)

    test_again_with_nothing_left = test_lock_is_held_elsewhere

    async def test_async_code_is_meant_too(self) -> None:
        async with held_elsewhere(LOCK, backend=self.using):
            self.assertIsNone(await aacquire_lock(LOCK, backend=self.using, timeout=200))
        for take in (alose, aexpire):
            lease = await aacquire_lock(LOCK, backend=self.using)
            await take(LOCK, backend=self.using)
            assert lease is not None
            self.assertFalse(lease.held)

    def test_lease_expires_and_stays_so_after_a_rollback(self) -> None:
        for noticed in (True, False):
            with suppress(LockLost), distributed_lock(LOCK, backend=self.using):
                with transaction.atomic(using=self.using):
                    expire(LOCK, backend=self.using, noticed=noticed)
            self.assertEqual(states(self.using), [LockState.STALE])
            lose(acquire(self.using))
            self.assertEqual(states(self.using), [])

    def test_loss_is_repeated_after_its_own_rollback_only(self) -> None:
        with suppress(LockLost), distributed_lock(LOCK, backend=self.using):
            with transaction.atomic(using=self.using):
                with suppress(ZeroDivisionError), transaction.atomic(using=self.using):
                    lose(LOCK, backend=self.using)
                    raise ZeroDivisionError
                self.assertEqual(states(self.using), [])
        self.assertEqual(states(self.using), [])
        with self.assertNumQueries(3, using=self.using):  # SAVEPOINT, ROLLBACK TO, RELEASE
            with suppress(ZeroDivisionError), transaction.atomic(using=self.using):
                raise ZeroDivisionError

    def test_store_is_down(self) -> None:
        with store_down(self.using), pytest.raises(LockBackendUnavailable):
            acquire(self.using)
        acquire(self.using)


class OnSQLite(InTestCase, TestCase):
    using = "default"
    databases = {"default", "locks"}

    def test_view_that_committed_elsewhere_is_not_said_to_be_undone(self) -> None:
        """No Retry-After invites a repetition, as without the test's transaction."""

        @distributed_lock(LOCK, http=True)
        def charge(request: HttpRequest) -> HttpResponse:
            with transaction.atomic(using="locks"):
                Counter.objects.using("locks").create()
            lose(LOCK)
            return HttpResponse("charged")

        with atomic_requests("default"):
            response = visit(charge)
        self.assertEqual(response.status_code, 503)
        self.assertNotIn("Retry-After", response)
        self.assertTrue(Counter.objects.using("locks").exists())


@pytest.mark.needs("postgresql")
class OnPostgreSQL(InTestCase, TestCase):
    using = "postgresql"
    databases = {"postgresql"}
