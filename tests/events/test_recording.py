"""Stores with "events": True: what is recorded of their locks, and what that costs."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import transaction
from django.test import TestCase, override_settings

from django_distlock import acquire_lock, lock_backends
from django_distlock.events.history import history
from django_distlock.events.purging import purge_events
from django_distlock.events.writing import writer
from django_distlock.models import LockEvent
from django_distlock.records import EventKind
from tests.support.concurrency import elsewhere, run, until
from tests.support.databases import committed, on_each_server
from tests.support.holders import acquire
from tests.support.recorded_events import DATABASE, MEMORY, SEMAPHORE, recorded

if TYPE_CHECKING:
    from django_distlock.backends.operations import PausingStore

pytestmark = [pytest.mark.once, committed, pytest.mark.usefixtures("recorded_store")]


def test_acquisition_and_release_are_recorded() -> None:
    """With the holder, the token, and how long it was waited for and held."""
    lease = acquire("memory", label="collect")
    assert lease.release()
    writer.finish(60)
    released, acquired = history("memory", SEMAPHORE)
    assert (acquired.kind, acquired.at) == (EventKind.ACQUIRED, lease.acquired_at)
    assert (acquired.holder, acquired.token) == (lease.holder, lease.token)
    assert acquired.waited is not None
    assert released.held is not None
    assert (acquired.held, released.waited) == (None, None)
    assert timedelta() < acquired.waited < timedelta(minutes=1)
    assert (released.kind, released.holder) == (EventKind.RELEASED, lease.holder)
    assert released.at == lease.acquired_at + released.held
    assert str(released.word) == "released"


def test_refusal_loss_and_forced_release_are_recorded(recorded_store: PausingStore) -> None:
    """Each with its reason, or who did it."""
    lease = acquire("memory")
    assert elsewhere(lambda: acquire_lock(SEMAPHORE, backend="memory", label="late")) is None
    found: Any = recorded_store
    assert found.force_release(SEMAPHORE, lease.token, by="ann")
    assert not lease.release()
    recorded_store.pause("", reason="deploy")
    assert acquire_lock(SEMAPHORE, backend="memory") is None
    recorded_store.resume("")
    kinds = dict(recorded())
    assert {*kinds} == {"acquired", "contended", "force_released", "lost"}
    events = {event.kind: event for event in history("memory", SEMAPHORE)}
    refusals = [e for e in history("memory", SEMAPHORE) if e.kind is EventKind.CONTENDED]
    assert [event.reason for event in refusals] == ["paused: deploy", f"held by {lease.holder}"]
    assert refusals[1].holder.startswith("late (")
    assert events[EventKind.FORCE_RELEASED].by == "ann"
    assert events[EventKind.FORCE_RELEASED].token == lease.token
    assert events[EventKind.LOST].reason
    assert events[EventKind.LOST].held is not None


def test_async_code_is_recorded_without_a_thread(recorded_store: Any) -> None:
    """It goes on in its event loop, as without events."""
    threads: list[str] = []
    acquire_there = type(recorded_store).aacquire

    async def main() -> None:
        from django_distlock import aacquire_lock

        lease = await aacquire_lock(SEMAPHORE, backend="memory")
        assert lease is not None
        assert await aacquire_lock(SEMAPHORE, backend="memory") is None
        await lease.arelease()

    async def note(self: Any, *arguments: Any, **named: Any) -> Any:
        threads.append(threading.current_thread().name)
        return await acquire_there(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(recorded_store), "aacquire", note)
        run(main())
    assert threads == [threading.current_thread().name] * 2
    assert sorted(kind for kind, _ in recorded()) == ["acquired", "contended", "released"]


def test_store_without_events_has_none() -> None:
    """Though another store of this process has them."""
    assert acquire("silent").release()
    assert recorded("silent") == []


def test_events_of_a_transaction_outlive_its_rollback() -> None:
    """They are written on another connection, which the transaction knows nothing of."""
    with pytest.raises(RuntimeError), transaction.atomic():
        lease = acquire("memory")
        assert lease.release()
        raise RuntimeError
    until(lambda: len(recorded()) == 2)
    assert [kind for kind, _ in recorded()] == ["acquired", "released"]


@on_each_server
def test_events_of_a_database_store_are_in_its_database(alias: str) -> None:
    """And not in that of the router."""
    stores = {"default": {"BACKEND": DATABASE, "OPTIONS": {"using": alias, "events": True}}}
    with override_settings(DISTLOCK=stores):
        assert acquire("default").release()
        writer.finish(60)
        assert LockEvent.objects.using(alias).filter(backend="default").count() == 2
        assert LockEvent.objects.using("default").count() == 0
        assert [kind for kind, _ in recorded("default")] == ["acquired", "released"]
        LockEvent.objects.using(alias).all().delete()
        lock_backends["default"].close()


class InTestCase(TestCase):
    """A test whose transaction is rolled back."""

    def test_nothing_is_recorded(self) -> None:
        """The writer's rows would stay, and it might have to wait for the test's transaction."""
        with mock.patch.object(writer, "add") as add:
            assert acquire("memory", "in a test").release()
        assert not add.called


def test_old_events_are_purged_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this store and prefix alone."""
    from django_distlock.events import purging

    monkeypatch.setattr(purging, "BATCH", 2)
    now = acquire("silent", "now").acquired_at
    old = now - timedelta(days=31)
    for backend, semaphore, at in (
        *[("memory", f"a{number}", old) for number in range(5)],
        ("memory", "b", old),
        ("memory", "a_", now),
        ("silent", "a", old),
    ):
        LockEvent.objects.create(backend=backend, semaphore=semaphore, kind="lost", at=at)
    assert purge_events("memory", timedelta(days=30), "a", dry_run=True) == 5
    assert purge_events("memory", timedelta(days=30), "a") == 5
    assert purge_events("memory", timedelta(days=30)) == 1
    left = LockEvent.objects.values_list("backend", "semaphore")
    assert sorted(left) == [("memory", "a_"), ("silent", "a")]


NO_EVENTS = """
import sys, django
django.setup()
from django_distlock import acquire_lock
from django.test import override_settings
override_settings(DISTLOCK={"memory": {"BACKEND": sys.argv[1]}}).enable()
assert acquire_lock("1234collectPayment", backend="memory").release()
assert not {"django_distlock.events.recording", "django_distlock.events.writing"} & {*sys.modules}
"""


def test_no_recorder_is_imported_where_no_store_has_events() -> None:
    """Nor a thread started: it is paid for where it is used."""
    subprocess.run([sys.executable, "-c", NO_EVENTS, MEMORY], timeout=60, check=True)
