"""Stores with "events": True: what is recorded of their locks, and what that costs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import OperationalError, connections, transaction
from django.test import TestCase, override_settings

from django_distlock import acquire_lock, lock_backends
from django_distlock.events import writing
from django_distlock.events.databases import Place
from django_distlock.events.history import history
from django_distlock.events.purging import purge_events
from django_distlock.events.writing import Event, writer
from django_distlock.models import LockEvent
from django_distlock.records import EventKind
from tests.support.concurrency import elsewhere, run, until
from tests.support.databases import committed, on_each_server
from tests.support.holders import acquire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock.backends.operations import PausingStore

pytestmark = [pytest.mark.once, committed]

SEMAPHORE = "1234collectPayment"
MEMORY = "django_distlock.backends.memory.MemoryBackend"
DATABASE = "django_distlock.backends.database.DatabaseBackend"


@pytest.fixture(autouse=True)
def store() -> Iterator[Any]:
    """Record what happens to the locks of "memory", and nothing of "silent"."""
    stores = {
        "memory": {"BACKEND": MEMORY, "OPTIONS": {"events": True}},
        "silent": {"BACKEND": MEMORY},
        "default": {"BACKEND": DATABASE, "OPTIONS": {"events": True}},
    }
    with override_settings(DISTLOCK=stores):
        found: Any = lock_backends["memory"]
        yield found
        writer.finish(60)
        found.clear()
        writer.forget()


def recorded(backend: str = "memory", semaphore: str = SEMAPHORE) -> list[tuple[str, str]]:
    """Return kind and reason of what was recorded, in the order of time."""
    writer.finish(60)
    return [(event.kind.value, event.reason) for event in reversed(history(backend, semaphore))]


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


def test_refusal_loss_and_forced_release_are_recorded(store: PausingStore) -> None:
    """Each with its reason, or who did it."""
    lease = acquire("memory")
    assert elsewhere(lambda: acquire_lock(SEMAPHORE, backend="memory", label="late")) is None
    found: Any = store
    assert found.force_release(SEMAPHORE, lease.token, by="ann")
    assert not lease.release()
    store.pause("", reason="deploy")
    assert acquire_lock(SEMAPHORE, backend="memory") is None
    store.resume("")
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


def test_async_code_is_recorded_without_a_thread(store: Any) -> None:
    """It goes on in its event loop, as without events."""
    threads: list[str] = []
    acquire_there = type(store).aacquire

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
        patch.setattr(type(store), "aacquire", note)
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


def test_failing_writes_are_tried_again_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Locks know nothing of it."""
    monkeypatch.setattr(writing, "DELAY", 0.001)
    failures = [OperationalError("down"), OperationalError("down"), RuntimeError("odd")]
    failed = threading.Event()
    create = type(LockEvent.objects.all()).bulk_create

    def fail(*arguments: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        failed.set()
        return create(*arguments, **named)

    monkeypatch.setattr(type(LockEvent.objects.all()), "bulk_create", fail)
    assert acquire("memory").release()
    assert failed.wait(60)
    assert [kind for kind, _ in recorded()] == ["acquired", "released"]
    assert caplog.text.count("can't be written to 'default', retrying") == 1


def test_event_that_the_database_refuses_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is dropped, with a log line."""
    monkeypatch.setattr(writing, "DELAY", 60)
    now = acquire("silent").acquired_at
    place = Place.of("default")
    writer.add(Event(place, EventKind.ACQUIRED, "memory", SEMAPHORE, now, token=2**70))
    writer.add(Event(place, EventKind.RELEASED, "memory", SEMAPHORE, now, token=1))
    assert [kind for kind, _ in recorded()] == ["released"]
    assert "An event of '1234collectPayment' was refused" in caplog.text


class BrokenRouter:
    """A router that fails."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        """Fail."""
        raise RuntimeError("no database for locks")


def test_event_that_cannot_be_recorded_costs_no_lock(caplog: pytest.LogCaptureFixture) -> None:
    """The log says why, once."""
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.BrokenRouter"]):
        assert acquire("memory").release()
    assert caplog.text.count("An event can't be recorded: no database for locks") == 1
    assert recorded() == []


def test_event_of_a_test_is_not_written_to_the_database_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The alias leads to the site's own database again by then."""
    monkeypatch.setattr(writing, "DELAY", 60)
    assert acquire("memory").release()
    with monkeypatch.context() as after:
        after.setitem(connections.settings["default"], "NAME", "of the site")
        assert Place.of("default").name == "of the site"
        writer.finish(60)
    assert recorded() == []


def test_too_many_events_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory is bounded, however long a database is down."""
    monkeypatch.setattr(writing, "DELAY", 60)
    monkeypatch.setattr(writing, "MOST", 3)
    for _ in range(4):
        assert acquire("memory").release()
    assert len(recorded()) == 3
    assert "5 events of locks were dropped" in caplog.text


def test_thread_ends_when_idle_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no connection then."""
    monkeypatch.setattr(writing, "DELAY", 0.001)
    monkeypatch.setattr(writing, "IDLE", 0.001)
    for number in range(1, 3):
        assert acquire("memory").release()
        [thread] = [t for t in threading.enumerate() if t.name == "django_distlock events"] or [
            threading.current_thread()
        ]
        if thread is not threading.current_thread():
            thread.join(60)
        assert len(recorded()) == 2 * number


def test_event_that_comes_during_the_last_write_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread was told to end meanwhile."""
    monkeypatch.setattr(writing, "DELAY", 0.001)
    joining = threading.Event()
    create = type(LockEvent.objects.all()).bulk_create
    ender = threading.Thread(target=writer.finish, args=[60])

    def be_told_to_end(*arguments: Any, **named: Any) -> Any:
        if not joining.is_set():
            thread = threading.current_thread()
            join = thread.join

            def join_visibly(seconds: float) -> None:
                joining.set()
                join(seconds)

            monkeypatch.setattr(thread, "join", join_visibly)
            ender.start()
            assert joining.wait(60)
            assert elsewhere(lambda: acquire("memory", "later").release())
        return create(*arguments, **named)

    monkeypatch.setattr(type(LockEvent.objects.all()), "bulk_create", be_told_to_end)
    assert acquire("memory").release()
    assert joining.wait(60)
    ender.join(60)
    assert len(history("memory", "later")) == 2


PROCESS = """
import os, sys
import django
django.setup()
from django.db import connections
connections["default"].settings_dict["NAME"] = os.environ["EVENTS_IN"]
connections.settings["default"]["NAME"] = os.environ["EVENTS_IN"]
from django.test import override_settings
stores = {"memory": {"BACKEND": sys.argv[1], "OPTIONS": {"events": True}}}
override_settings(DISTLOCK=stores).enable()
from django_distlock import acquire_lock
lease = acquire_lock("1234collectPayment", backend="memory")
if os.fork() == 0:
    assert acquire_lock("child", backend="memory").release()
    sys.exit()
assert not os.wait()[1]
lease.release()
acquire_lock("left", backend="memory")
"""


def test_process_writes_the_last_events_when_it_ends(store: Any) -> None:
    """Also those of locks that it releases at the end; a forked child writes only its own."""
    name = str(connections["default"].settings_dict["NAME"])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROCESS, MEMORY],
        env=os.environ | {"EVENTS_IN": name},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [kind for kind, _ in recorded()] == ["acquired", "released"]
    assert [kind for kind, _ in recorded(semaphore="left")] == ["acquired", "released"]
    assert [kind for kind, _ in recorded(semaphore="child")] == ["acquired", "released"]


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
