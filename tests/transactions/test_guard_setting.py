"""`"guard_commits": False` in a store's OPTIONS leaves commits and connections alone."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from django_distlock import Lease, LockLost, distributed_lock, lock_backends
from django_distlock.models import Lock
from tests.app.models import Counter
from tests.support.concurrency import until
from tests.support.databases import committed
from tests.support.holders import free_for_others, take_away
from tests.support.moved_clock import MovedClock
from tests.support.visits import atomic_requests, visit

pytestmark = committed

on_each_store = pytest.mark.parametrize(
    ("backend", "using"),
    [
        ("default", "default"),
        ("memory", "default"),
        pytest.param("postgresql", "postgresql", marks=pytest.mark.needs("postgresql")),
        pytest.param("mariadb", "mariadb", marks=pytest.mark.needs("mariadb")),
        pytest.param("redis", "default", marks=pytest.mark.needs("redis")),
    ],
)


GuardCommits = Callable[[str, bool], None]


@pytest.fixture
def guard_commits(settings: Any) -> GuardCommits:
    """Return a function that sets `guard_commits` in the OPTIONS of a store."""

    def configure(alias: str, guard: bool) -> None:
        entry = settings.DISTLOCK[alias]
        options = entry.get("OPTIONS", {}) | {"guard_commits": guard}
        settings.DISTLOCK = settings.DISTLOCK | {alias: entry | {"OPTIONS": options}}

    return configure


def lose_in_transaction(backend: str, using: str, moved_clock: MovedClock) -> None:
    """Write in a transaction under a lock that is lost."""
    with distributed_lock("1234collectPayment", backend=backend) as lease:
        with transaction.atomic(using=using):
            Counter.objects.using(using).create()
            moved_clock.outdate(lease)
            if backend == "default":  # SQLite has one writer, this one
                Lock.objects.update(owner="somebody else")
            else:
                take_away(lease)


@on_each_store
def test_commit_is_refused_with_the_guard(
    backend: str, using: str, guard_commits: GuardCommits, moved_clock: MovedClock
) -> None:
    """The setting switches this off."""
    guard_commits(backend, True)
    with pytest.raises(LockLost, match="before the commit"):
        lose_in_transaction(backend, using, moved_clock)
    assert not Counter.objects.using(using).exists()


@on_each_store
def test_nothing_is_asked_nor_refused_without_the_guard(
    backend: str, using: str, guard_commits: GuardCommits, moved_clock: MovedClock
) -> None:
    """The loss is noticed at the end of the block, when all is committed."""
    guard_commits(backend, False)
    store = lock_backends[backend]
    with (
        mock.patch.object(store, "guard", create=True) as asked,  # only some stores have it
        mock.patch.object(store, "renew") as asked_instead,
        pytest.raises(LockLost, match="before its block ended"),
    ):
        lose_in_transaction(backend, using, moved_clock)
    assert not asked.called
    assert not asked_instead.called
    assert Counter.objects.using(using).exists()


def test_lease_of_a_guarded_store_is_guarded_beside_one_that_is_not(
    guard_commits: GuardCommits, moved_clock: MovedClock
) -> None:
    """Each store has its own setting."""
    guard_commits("memory", False)
    with (
        pytest.raises(LockLost, match="before the commit"),
        distributed_lock("1234collectPayment", backend="default") as lease,
        distributed_lock("1234collectPayment", backend="memory"),
        transaction.atomic(using="locks"),
    ):
        Counter.objects.using("locks").create()
        moved_clock.expire(lease)
    assert not Counter.objects.using("locks").exists()


@on_each_store
@pytest.mark.parametrize("fails", [False, True])
def test_release_waits_for_the_transaction_without_the_guard(
    backend: str, using: str, fails: bool, guard_commits: GuardCommits
) -> None:
    """After a rollback it is done by a background thread."""
    guard_commits(backend, False)
    try:
        with transaction.atomic(using=using):
            with distributed_lock("1234collectPayment", backend=backend):
                Counter.objects.using(using).create()
            if backend != "default":
                assert not free_for_others(backend)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert Counter.objects.using(using).exists() is not fails
    until(lambda: free_for_others(backend))


def test_view_is_not_said_to_be_undone_without_the_guard(
    guard_commits: GuardCommits, acquired: list[Lease]
) -> None:
    """Its commits are unknown: no Retry-After invites a repetition."""
    guard_commits("memory", False)

    @distributed_lock("1234collectPayment", backend="memory", http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.using("locks").create()
        take_away(acquired[0])
        acquired[0].renew()
        pytest.fail("It was renewed.")

    with atomic_requests("default"):
        response = visit(charge)
    assert response.status_code == 503
    assert "Retry-After" not in response
    assert Counter.objects.using("locks").exists()
