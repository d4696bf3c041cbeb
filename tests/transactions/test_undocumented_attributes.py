"""Transactions are tracked even without Django's undocumented attributes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import TestCase

from django_distlock import LockError, acquire_lock, distributed_lock, release_lock, runtime
from django_distlock.models import Lock
from tests.support.concurrency import until
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire, free_for_others
from tests.support.signals import received
from tests.support.visits import atomic_requests, visit


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Hide an attribute from the package; Django itself still uses it."""
    read = runtime.read_private

    def read_but_one(owner: object, attribute: str, default: Any = None) -> Any:
        return default if attribute == name else read(owner, attribute, default)

    monkeypatch.setattr(runtime, "read_private", read_but_one)


@committed
@on_each_database
@pytest.mark.parametrize("fails", [False, True])
def test_release_waits_without_run_on_commit(
    alias: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the rollback of an inner block, which drops the callbacks of on_commit() in it."""
    hide(monkeypatch, "run_on_commit")
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        lease = acquire(alias)
        for _ in range(2):
            with (
                suppress(KeyError),
                transaction.atomic(using=alias),
                transaction.atomic(using=alias),
            ):
                lease.release()
                raise KeyError
            if alias not in ("default", "locks"):  # SQLite: the grant is in the transaction
                assert not free_for_others(alias)
        if fails:
            raise ZeroDivisionError
    until(lambda: free_for_others(alias))


@committed
@on_each_database
def test_errors_of_other_callbacks_do_not_keep_the_lock_without_run_on_commit(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django drops the callbacks that follow, including the package's."""
    hide(monkeypatch, "run_on_commit")
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        transaction.on_commit(lambda: 1 / 0, using=alias)
        with distributed_lock("1234collectPayment", backend=alias):
            pass
    until(lambda: free_for_others(alias))


@committed
@on_each_server
def test_closed_connection_is_noticed_without_closed_in_transaction(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query finds out whether the connection is usable."""
    hide(monkeypatch, "closed_in_transaction")
    with transaction.atomic(using=alias):
        lease = acquire(alias)
        connections[alias].close()
        assert lease.release()
        assert free_for_others(alias)


@committed
@pytest.mark.parametrize("alias", ["default"])
def test_autocommit_off_is_refused_without_commit_on_exit(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least outside atomic(), and inside it according to the setting."""
    hide(monkeypatch, "commit_on_exit")
    transaction.set_autocommit(False, using=alias)
    try:
        with pytest.raises(LockError, match="Autocommit is off"):
            acquire(alias)
        monkeypatch.setitem(connections[alias].settings_dict, "AUTOCOMMIT", False)
        with transaction.atomic(using=alias), pytest.raises(LockError, match="Autocommit is off"):
            acquire(alias)
    finally:
        connections[alias].rollback()
        transaction.set_autocommit(True, using=alias)
    monkeypatch.setitem(connections[alias].settings_dict, "AUTOCOMMIT", True)
    with transaction.atomic(using=alias):
        assert acquire(alias).release()


@committed
@on_each_database
def test_release_in_a_savepoint_is_undone_and_done_again_without_savepoint_ids(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite, where the release is in the transaction."""
    hide(monkeypatch, "savepoint_ids")
    with transaction.atomic(using=alias):
        lease = acquire(alias)
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            lease.release()
            raise ZeroDivisionError
    assert free_for_others(alias)


@committed
def test_release_waits_for_djangos_transaction_without_non_atomic_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If exempt views can't be found out, Django's transaction is around the lock."""
    hide(monkeypatch, "_non_atomic_requests")
    released_in: list[bool] = []

    @distributed_lock("report")
    def view(request: HttpRequest) -> HttpResponse:
        assert connections["default"].in_atomic_block
        return HttpResponse()

    with (
        atomic_requests("default"),
        received(
            "released", lambda **_: released_in.append(connections["default"].in_atomic_block)
        ),
    ):
        assert visit(view).status_code == 200
    assert released_in == [False]


@pytest.mark.needs("postgresql")
class WithoutTestcaseMarks(TestCase):
    """A TestCase's transaction is distinguished from the caller's."""

    databases = {"postgresql"}

    def setUp(self) -> None:
        patch = pytest.MonkeyPatch()
        self.addCleanup(patch.undo)
        hide(patch, "_from_testcase")

    def test_release_is_done_at_once(self) -> None:
        """A durable block is allowed there. Inside atomic() a TestCase is not recognized."""
        held = Lock.objects.using("postgresql").held()
        for _ in range(2):
            self.assertTrue(acquire_lock("1234collectPayment", backend="postgresql"))
            self.assertIsNone(acquire_lock("1234collectPayment", backend="postgresql"))
            self.assertTrue(release_lock("1234collectPayment", backend="postgresql"))
            self.assertFalse(held.exists())
        with (
            distributed_lock("1234collectPayment", backend="postgresql"),
            transaction.atomic(using="postgresql"),
        ):
            pass
        self.assertFalse(held.exists())
