"""`manage.py clear_stale_locks` beside running workers."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from django_distlock import acquire_lock, lock_backends
from django_distlock.backends.database import cleaning
from django_distlock.leases.request import new_owner
from django_distlock.models import Lock
from tests.support.databases import on_each_database
from tests.support.stale_locks import HOUR, found, make_released, make_stale, run

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each lock a batch of its own."""
    monkeypatch.setattr(cleaning, "BATCH", 1)
    monkeypatch.setattr(cleaning, "PAGE", 1)


class Intrusion(StringIO):
    """An output that runs a worker as soon as a line about the first lock is printed."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act = act

    def write(self, text: str) -> int:
        if text.startswith("first:"):
            self.act()
        return super().write(text)


@on_each_database
@pytest.mark.usefixtures("one_at_a_time")
def test_lock_that_a_worker_takes_after_the_listing_is_left_to_it(alias: str) -> None:
    """A stale lock may be acquired before its turn comes: then it is no longer stale."""
    make_stale(alias, "first")
    make_stale(alias, "second")
    owner = new_owner()
    output = Intrusion(lambda: lock_backends[alias].acquire("second", owner, 60, "worker"))
    call_command("clear_stale_locks", f"--backend={alias}", stdout=output)
    assert "1 stale lock released." in output.getvalue()
    assert "second:" not in output.getvalue()
    lock = Lock.objects.using(alias).get(semaphore="second")
    assert (lock.owner, lock.holder) == (owner, "worker")
    assert found(Lock.objects.using(alias).held()) == ["second"]


@on_each_database
@pytest.mark.usefixtures("one_at_a_time")
def test_lock_that_was_granted_and_expired_meanwhile_is_printed_with_its_last_holder(
    alias: str,
) -> None:
    """The printed holder is that of the released lease."""
    make_stale(alias, "first")
    make_stale(alias, "second")
    locks = Lock.objects.using(alias)
    output = Intrusion(lambda: locks.filter(semaphore="second").update(token=2, holder="next"))
    call_command("clear_stale_locks", f"--backend={alias}", stdout=output)
    assert found(locks.stale()) == []
    assert "second: next" in output.getvalue()


@on_each_database
@pytest.mark.usefixtures("one_at_a_time")
def test_lock_that_a_worker_takes_before_the_purge_is_not_deleted(alias: str) -> None:
    """A released lock may be acquired before its turn comes."""
    make_released(alias, "first")
    make_released(alias, "second")
    owner = new_owner()
    output = Intrusion(lambda: lock_backends[alias].acquire("second", owner, 60, "worker"))
    call_command("clear_stale_locks", f"--backend={alias}", "--purge-released=1h", stdout=output)
    assert "1 released lock deleted." in output.getvalue()
    assert found(Lock.objects.using(alias).held()) == ["second"]


@on_each_database
def test_expired_holder_cannot_release_its_successors_lock_after_a_clear(alias: str) -> None:
    """It gets "lost", and its successor is untouched."""
    late = acquire_lock("report", backend=alias)
    assert late is not None
    Lock.objects.using(alias).update(expires_at=datetime.now(UTC) - HOUR)
    run(alias)
    successor = new_owner()
    assert lock_backends[alias].acquire("report", successor, 60, "successor")
    assert late.release() is False
    assert Lock.objects.using(alias).get(semaphore="report").owner == successor
