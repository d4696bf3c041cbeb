"""The background thread of a store: when it runs, what it survives, and its other work."""

import sys
import threading
from contextlib import suppress
from unittest import mock

import pytest
from django.db import DatabaseError, connections, transaction

from django_distlock.concurrency.background import Background
from tests.app.models import Counter
from tests.support.concurrency import NO_MORE_THREADS, until
from tests.support.databases import committed, on_each_server
from tests.support.holders import acquire, free_for_others, take_away
from tests.support.moved_clock import MovedClock
from tests.support.scripted_store import ScriptedBackend

pytestmark = committed


# When the thread runs


def test_thread_starts_when_a_lease_needs_it(
    scripted: ScriptedBackend, default_background: Background
) -> None:
    """Not for an unlimited lease, nor for one with renew=False."""
    for arguments in ({"ttl": None}, {"renew": False}):
        acquire("default", **arguments).release()
        assert default_background.thread is None
    lease = acquire("default")
    thread = default_background.thread
    assert thread is not None
    assert thread.daemon
    lease.release()
    acquire("default").release()
    assert default_background.thread is thread


def test_short_lease_wakes_a_thread_that_would_look_later(
    scripted: ScriptedBackend, default_background: Background
) -> None:
    """A long lease doesn't."""
    first = acquire("default", "1234collectPayment", ttl=60)
    until(lambda: default_background.scans_at == first.due)
    first.release()
    second = acquire("default", "1234collectPayment", ttl=90)
    assert default_background.scans_at == first.due
    second.release()
    third = acquire("default", "1234collectPayment", ttl=30)
    until(lambda: default_background.scans_at == third.due)
    third.release()


def test_background_thread_ends_when_nothing_is_expected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure of some work doesn't end it before."""
    monkeypatch.setattr("django_distlock.concurrency.background.IDLE", 0.01)
    own = Background("default")
    occasion, done = object(), threading.Event()
    own.pin(occasion)
    thread = own.thread
    assert thread is not None
    assert thread.daemon
    own.submit(lambda: 1 // 0)
    own.submit(done.set)
    assert done.wait(60)
    assert "Work of the background thread failed." in caplog.text
    with mock.patch.object(own.renewals, "next_due", wraps=own.renewals.next_due) as looks:
        until(lambda: looks.call_count > 5)  # after each, it could have ended
    assert thread.is_alive()
    own.unpin(occasion)
    thread.join(60)
    assert not thread.is_alive()
    own.pin(occasion)
    assert own.thread is not thread
    own.unpin(occasion)


def test_background_of_a_removed_store_ends_silently(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a test with its own settings: there is nothing to close."""
    monkeypatch.setattr("django_distlock.concurrency.background.IDLE", 0.01)
    own = Background("gone")
    occasion = object()
    own.pin(occasion)
    thread = own.thread
    assert thread is not None
    own.unpin(occasion)
    thread.join(60)
    assert not thread.is_alive()
    assert "Work of the background thread failed." not in caplog.text


def test_background_does_without_a_thread_where_there_can_be_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It tries to start one the next time."""
    own = Background("default")
    with mock.patch.object(threading.Thread, "start", side_effect=NO_MORE_THREADS):
        own.pin("first occasion")
    assert "without being renewed" in caplog.text
    done = threading.Event()
    own.submit(done.set)
    assert not done.is_set()
    own.pin("second occasion")
    assert done.wait(60)
    own.unpin("first occasion")
    own.unpin("second occasion")


def test_background_may_be_needed_while_it_starts() -> None:
    """As when the garbage collector closes a generator with a locked block at that moment."""
    own = Background("default")
    start = threading.Thread.start

    def interrupted_start(thread: threading.Thread) -> None:
        with mock.patch.object(threading.Thread, "start", start):
            own.pin("collected")
        start(thread)

    with mock.patch.object(threading.Thread, "start", interrupted_start):
        own.pin("interrupted")
    done = threading.Event()
    own.submit(done.set)
    assert done.wait(60)
    own.unpin("interrupted")
    own.unpin("collected")


def test_thread_ends_when_nothing_is_left_to_renew(
    scripted: ScriptedBackend,
    default_background: Background,
    moved_clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the time at which the released lease would have been renewed."""
    monkeypatch.setattr("django_distlock.concurrency.background.IDLE", 0.01)
    lease = acquire("default", ttl=60)
    thread = default_background.thread
    assert thread is not None
    lease.release()
    moved_clock.expire(lease)
    default_background.submit(lambda: None)  # wakes it
    thread.join(60)
    assert not thread.is_alive()
    assert default_background.thread is None


def test_uwsgi_without_threads_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its workers run no Python threads without --enable-threads."""
    uwsgi = mock.Mock(opt={"http": b":8000"})
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    own = Background("default")
    own.pin("occasion")
    own.unpin("occasion")
    assert "uWSGI needs --enable-threads" in caplog.text
    caplog.clear()
    uwsgi.opt["enable-threads"] = True
    other = Background("default")
    other.pin("occasion")
    other.unpin("occasion")
    assert caplog.text == ""


# What it survives


def test_thread_survives_errors_of_receivers(
    scripted: ScriptedBackend, default_background: Background, caplog: pytest.LogCaptureFixture
) -> None:
    """It survives even sys.exit()."""
    lease = acquire("default")
    done = threading.Event()
    default_background.submit(lambda: exit(1))
    default_background.submit(done.set)
    assert done.wait(60)
    assert default_background.thread is not None
    assert default_background.thread.is_alive()
    assert "Work of the background thread failed" in caplog.text
    lease.release()


def test_thread_that_was_killed_is_replaced(
    scripted: ScriptedBackend, default_background: Background
) -> None:
    """By an error of the logging itself, for instance (peer defect 22)."""
    first = acquire("default", "1234collectPayment")
    thread = default_background.thread
    assert thread is not None
    with (
        mock.patch(
            "django_distlock.concurrency.background.logger.exception", side_effect=ValueError
        ),
        mock.patch.object(threading, "excepthook"),
    ):
        default_background.submit(lambda: 1 // 0)
        thread.join(60)
    assert not thread.is_alive()
    first.release()
    second = acquire("default", "1234collectPayment")
    assert default_background.thread is not thread
    second.release()


# Releases in the background


@on_each_server
def test_release_left_to_the_background_concerns_no_later_transaction(alias: str) -> None:
    """The lock of a rolled back transaction may be lost."""
    with mock.patch.object(Background, "submit") as submit:
        with suppress(DatabaseError), transaction.atomic(using=alias):
            lease = acquire(alias)
            lease.release()
            connections[alias].close()
    take_away(lease)
    with transaction.atomic(using=alias):
        Counter.objects.using(alias).create()
    assert Counter.objects.using(alias).exists()
    [[complete]] = [call.args for call in submit.call_args_list]
    complete()


@on_each_server
def test_release_left_to_the_background_is_done_once(alias: str) -> None:
    """Even if the thread that acquires the lock again was faster."""
    with mock.patch.object(Background, "submit") as submit:
        with suppress(DatabaseError), transaction.atomic(using=alias):
            acquire(alias).release()
            connections[alias].close()
    lease = acquire(alias)
    [[complete]] = [call.args for call in submit.call_args_list]
    complete()
    assert not free_for_others(alias)
    assert lease.release()
