"""Refusals by the database: they tell of the holder in the statement that refused."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import pytest
from django.db import connection, transaction

from django_distlock import lock_backends
from django_distlock.leases.request import new_owner
from django_distlock.records import KEPT, REFUSED, Grant, LeaseClaim, Refusal
from tests.support.databases import DATABASES, committed, on_each_database, statements_sent
from tests.support.holders import acquire

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [committed, pytest.mark.once]

SEMAPHORE = "1234collectPayment"


@pytest.fixture
def orm_backend() -> Iterator[None]:
    """Have SQLite's store use the ORM, as on a database that is not known."""
    with mock.patch.object(connection.features, "can_return_columns_from_insert", False):
        yield


def attempt(alias: str, owner: str = "") -> Grant | Refusal:
    """Try once, as another owner."""
    return lock_backends[alias].acquire(SEMAPHORE, owner or new_owner(), 60, "another")


def assert_told(alias: str, refusal: Grant | Refusal) -> None:
    """Fail unless all that the list says of the holder is in the refusal, too."""
    [lock] = lock_backends[alias].held()
    assert isinstance(refusal, Refusal)
    assert (refusal.holder, refusal.acquired_at) == (lock.holder, lock.acquired_at)
    assert (refusal.expires_at, refusal.reason) == (lock.expires_at, "")
    assert refusal.seen_at is not None
    assert lock.acquired_at is not None
    assert lock.acquired_at <= refusal.seen_at <= lock.seen_at


@on_each_database
def test_refusal_tells_of_the_holder(alias: str) -> None:
    """On each database that returns rows, whatever the contract lets a store keep to itself."""
    acquire(alias, label="invoices")
    assert_told(alias, attempt(alias))


@pytest.mark.parametrize("alias", DATABASES[1:])
def test_refusal_takes_one_statement(alias: str) -> None:
    """It is the one that would have granted the lock."""
    acquire(alias)
    attempt(alias)
    outcomes: list[Grant | Refusal] = []
    assert len(statements_sent(alias, lambda: outcomes.append(attempt(alias)))) == 1
    assert_told(alias, outcomes[0])


def test_refusal_in_a_transaction_tells_of_the_holder_on_sqlite() -> None:
    """There the attempt writes before it reads."""
    acquire("default")
    with transaction.atomic():
        assert_told("default", attempt("default"))


@pytest.mark.usefixtures("orm_backend")
def test_refusal_by_the_orm_tells_of_the_holder() -> None:
    """The query that looks whether the row is free reads it."""
    acquire("default")
    assert_told("default", attempt("default"))
    with transaction.atomic():
        assert_told("default", attempt("default"))


@pytest.mark.usefixtures("orm_backend")
def test_refusal_by_the_orm_says_that_a_lock_is_only_kept() -> None:
    """It has the last holder."""
    grant = attempt("default", "x" * 30)
    assert grant
    claim = LeaseClaim(SEMAPHORE, "x" * 30, 60, grant.token)
    assert lock_backends["default"].release(claim, 60)
    refusal = attempt("default")
    assert isinstance(refusal, Refusal)
    assert (refusal.holder, refusal.reason) == ("another", KEPT)


@pytest.mark.needs("mariadb")
def test_refusal_tells_nothing_where_that_would_take_another_statement() -> None:
    """MySQL returns no rows of an INSERT."""
    acquire("mysql")
    assert attempt("mysql") is REFUSED
