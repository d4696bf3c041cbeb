"""In a TestCase, what would be a commit without the test's transaction is guarded as one."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import TestCase
from django.views import View

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockLost,
    acquire_lock,
    distributed_lock,
    lock_backends,
)
from django_distlock.leases.commit_guard import connection_opened
from django_distlock.test import lose, override_locks
from tests.app.models import Counter
from tests.support.visits import SOON, atomic_requests, visit

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object

LOCK = "1234collectPayment"


class Guarded(Base):
    """The locks are in the same database as the data, or in memory."""

    using: str

    def write(self, value: int = 1) -> None:
        Counter.objects.using(self.using).create(value=value)

    def values(self) -> list[int]:
        return [each.value for each in Counter.objects.using(self.using).order_by("value")]

    def lock(self) -> AbstractContextManager[Lease]:
        return distributed_lock(LOCK, backend=self.using)

    def lose(self, *, noticed: bool) -> None:
        lose(LOCK, backend=self.using, noticed=noticed)

    def test_end_of_the_outermost_block_is_refused_and_its_work_undone(self) -> None:
        """Whether the holder has noticed the loss or not; the test goes on afterwards."""
        for noticed in (True, False):
            for durable in (True, False):
                with self.subTest(noticed=noticed, durable=durable):
                    self.write(0)
                    with pytest.raises(LockLost, match="was lost before the commit"):
                        with self.lock(), transaction.atomic(using=self.using, durable=durable):
                            self.write()
                            self.lose(noticed=noticed)
                    self.assertEqual(self.values(), [0])
                    Counter.objects.using(self.using).all().delete()

    def test_decorated_function_is_guarded(self) -> None:
        """atomic() as a decorator is the same."""

        @distributed_lock(LOCK, backend=self.using)
        @transaction.atomic(using=self.using)
        def charge() -> None:
            self.write()
            self.lose(noticed=False)

        with pytest.raises(LockLost, match="was lost before the commit"):
            charge()
        self.assertEqual(self.values(), [])

    def test_end_of_an_inner_block_is_no_commit(self) -> None:
        """Nor is it without the test's transaction. All of it is undone at the outer end."""
        reached = []
        with pytest.raises(LockLost), self.lock(), transaction.atomic(using=self.using):
            with transaction.atomic(using=self.using):
                self.write(1)
                self.lose(noticed=False)
            reached.append(self.values())
            self.write(2)
        self.assertEqual(reached, [[1]])
        self.assertEqual(self.values(), [])

    def test_commit_under_a_held_lock_is_done(self) -> None:
        """One after the other, and what an earlier one wrote stays when a later one is refused."""
        with pytest.raises(LockLost), self.lock():
            for number in (1, 2):
                with transaction.atomic(using=self.using):
                    self.write(number)
            self.lose(noticed=False)
            with transaction.atomic(using=self.using):
                self.write(3)
        self.assertEqual(self.values(), [1, 2])

    def test_outermost_block_without_a_savepoint_is_not_guarded(self) -> None:
        """Nothing can undo its work alone: the loss is told at the end of the locked block."""
        with pytest.raises(LockLost, match="before its block ended"), self.lock():
            with transaction.atomic(using=self.using, savepoint=False):
                self.write()
                self.lose(noticed=True)
        self.assertEqual(self.values(), [1])

    def test_rollback_asks_nobody(self) -> None:
        """It has its own reason, which the loss doesn't replace."""
        with pytest.raises(ZeroDivisionError), self.lock():
            with transaction.atomic(using=self.using):
                self.write()
                self.lose(noticed=False)
                raise ZeroDivisionError
        with pytest.raises(LockLost) as lost, self.lock():
            with transaction.atomic(using=self.using):
                self.write()
                self.lose(noticed=False)
                transaction.set_rollback(True, using=self.using)
        self.assertNotIn("commit", str(lost.value))
        self.assertEqual(self.values(), [])

    def test_on_commit_functions_of_a_refused_commit_are_not_called(self) -> None:
        """They would send the mail for what was undone."""
        with self.captureOnCommitCallbacks(using=self.using) as callbacks:
            with suppress(LockLost), self.lock(), transaction.atomic(using=self.using):
                transaction.on_commit(lambda: None, using=self.using)
                self.lose(noticed=True)
        self.assertEqual(callbacks, [])

    def test_work_outside_of_atomic_blocks_is_kept(self) -> None:
        """As autocommit does."""
        with pytest.raises(LockLost), self.lock():
            self.write()
            self.lose(noticed=True)
        self.assertEqual(self.values(), [1])

    def test_other_threads_locks_and_other_code_are_not_meant(self) -> None:
        """The commit depends on the blocks that the code is in, no others."""
        acquire_lock(LOCK, backend=self.using)
        self.lose(noticed=True)
        with transaction.atomic(using=self.using):
            self.write()
        self.assertEqual(self.values(), [1])

    def test_lock_that_was_lost_is_free_after_the_rollback(self) -> None:
        """Where its row is in the test's transaction, too: the rollback doesn't bring it back."""
        for noticed in (True, False):
            with suppress(LockLost), self.lock(), transaction.atomic(using=self.using):
                self.lose(noticed=noticed)
            with self.lock():
                pass

    def test_error_of_the_guard_undoes_the_work(self) -> None:
        """Of the store, of the database, or of an interrupted thread."""
        for error in (LockBackendUnavailable("down"), DatabaseError("gone"), KeyboardInterrupt()):
            with self.subTest(error=error):
                with (
                    mock.patch("django_distlock.leases.commit_guard.guard", side_effect=error),
                    pytest.raises(type(error)),
                    self.lock(),
                    transaction.atomic(using=self.using),
                ):
                    self.write()
                self.assertEqual(self.values(), [])

    def test_view_under_atomic_requests_answers_503_and_its_work_is_undone(self) -> None:
        """As without the test's transaction."""
        for noticed in (True, False):
            with self.subTest(noticed=noticed), atomic_requests(self.using):
                with self.assertLogs("django_distlock.views") as logged:
                    response = visit(self.charge(noticed))
                self.assertEqual(response.status_code, 503)
                self.assertIn(response["Retry-After"], SOON)
                self.assertIn("its work is rolled back", logged.output[0])
                self.assertEqual(self.values(), [])

    def charge(self, noticed: bool) -> Any:
        @distributed_lock(LOCK, backend=self.using, http=True)
        def charge(request: HttpRequest) -> HttpResponse:
            self.write()
            self.lose(noticed=noticed)
            return HttpResponse("charged")

        return charge

    def test_locked_method_in_djangos_transaction_answers_503_and_that_is_undone(self) -> None:
        """What was written before the method, too."""
        case = self
        noticed: bool | None

        class Charge(View):
            def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                case.write()
                return super().dispatch(request, *args, **kwargs)

            @distributed_lock(LOCK, backend=self.using)
            def get(self, request: HttpRequest) -> HttpResponse:
                case.write()
                if noticed is not None:
                    case.lose(noticed=noticed)
                return HttpResponse("charged")

        for noticed in (True, False):
            with self.subTest(noticed=noticed), atomic_requests(self.using):
                self.assertEqual(visit(Charge.as_view()).status_code, 503)
                self.assertEqual(self.values(), [])
        noticed = None  # from here on, the lock is kept
        with atomic_requests(self.using):
            self.assertEqual(visit(Charge.as_view()).status_code, 200)
        self.assertEqual(self.values(), [1, 1])
        self.assertTrue(acquire_lock(LOCK, backend=self.using))
        with atomic_requests(self.using):
            self.assertEqual(visit(Charge.as_view()).status_code, 409)
        self.assertEqual(self.values(), [1, 1])

    def test_failed_statement_is_not_taken_for_a_loss(self) -> None:
        """Django's own rollback to the savepoint goes on as usual."""
        with self.lock():
            with suppress(IntegrityError), transaction.atomic(using=self.using):
                Counter.objects.using(self.using).create(pk=1)
                Counter.objects.using(self.using).create(pk=1)
            self.write(2)
        self.assertEqual(self.values(), [2])


class OnSQLite(Guarded, TestCase):
    using = "default"
    databases = {"default", "locks"}

    def test_each_database_is_guarded(self) -> None:
        """Django ends the inner block first: what that would have committed stays."""
        for inner, outer in (("locks", "default"), ("default", "locks")):
            with self.subTest(inner=inner):
                with suppress(LockLost), self.lock(), transaction.atomic(using=outer):
                    Counter.objects.using(outer).create(value=1)
                    with transaction.atomic(using=inner):
                        Counter.objects.using(inner).create(value=1)
                    self.lose(noticed=True)
                self.assertFalse(Counter.objects.using(outer).exists())
                self.assertTrue(Counter.objects.using(inner).exists())
                Counter.objects.using(inner).all().delete()


@pytest.mark.once
@pytest.mark.needs("postgresql")
class OnPostgreSQL(Guarded, TestCase):
    using = "postgresql"
    databases = {"postgresql"}


@pytest.mark.once
@pytest.mark.needs("mariadb")
class OnMariaDB(Guarded, TestCase):
    using = "mariadb"
    databases = {"mariadb"}


@pytest.mark.once
@override_locks()
class InMemory(Guarded, TestCase):
    using = "default"


@pytest.mark.usefixtures("db")
def test_pytest_djangos_db_fixture_is_a_testcase(lost: dict[Lease, str]) -> None:
    """The fixture's own transaction is that of a TestCase."""
    with pytest.raises(LockLost, match="before the commit"):
        with distributed_lock(LOCK), transaction.atomic():
            Counter.objects.create(value=1)
            lose(LOCK)
    assert not Counter.objects.exists()
    assert len(lost) == 1


@pytest.mark.usefixtures("db")
def test_guard_that_is_switched_off_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside of tests."""
    monkeypatch.setattr(lock_backends["default"], "guard_commits", False)
    with pytest.raises(LockLost), distributed_lock(LOCK), transaction.atomic():
        Counter.objects.create(value=1)
        lose(LOCK)
    assert Counter.objects.exists()


def test_process_without_tests_keeps_djangos_methods_of_savepoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no TestCase, and pays nothing."""
    connection = connections["default"].copy()
    with distributed_lock(LOCK, backend="memory"):
        monkeypatch.delitem(sys.modules, "django.test.testcases")
        connection_opened(connection=connection)
        monkeypatch.undo()
    assert {"commit", "rollback"} <= vars(connection).keys()
    assert not {"savepoint_commit", "savepoint_rollback"} & vars(connection).keys()
