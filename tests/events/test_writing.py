"""The thread that writes events: what it does about failures, too many events, and the end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.test import override_settings

from django_distlock.events import writing
from django_distlock.events.databases import Place
from django_distlock.events.history import history
from django_distlock.events.writing import Event, writer
from django_distlock.models import LockEvent
from django_distlock.records import EventKind
from tests.support.concurrency import elsewhere
from tests.support.databases import committed
from tests.support.holders import acquire
from tests.support.recorded_events import MEMORY, SEMAPHORE, recorded

pytestmark = [pytest.mark.once, committed, pytest.mark.usefixtures("recorded_store")]


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


def test_process_writes_the_last_events_when_it_ends() -> None:
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
