"""What is left to the background thread, and when it is there."""

import threading
from contextlib import suppress
from unittest import mock

import pytest
from django.db import DatabaseError, connections, transaction

from django_distlock.background import Background
from tests.app.models import Counter
from tests.conftest import committed, on_each_server
from tests.others import acquire, free_for_others, take_away

pytestmark = committed


def test_background_thread_goes_when_nothing_is_expected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And no failure of some work ends it before."""
    monkeypatch.setattr("django_distlock.background.IDLE", 0.01)
    thread_of = Background("default")
    occasion, done = object(), threading.Event()
    thread_of.expect(occasion)
    thread = thread_of.thread
    assert thread is not None
    assert thread.daemon
    thread_of.do(lambda: 1 // 0)
    thread_of.do(done.set)
    assert done.wait(60)
    assert "What was left to the background failed." in caplog.text
    thread.join(0.1)
    assert thread.is_alive()
    thread_of.over(occasion)
    thread.join(60)
    assert not thread.is_alive()
    thread_of.expect(occasion)
    assert thread_of.thread is not thread
    thread_of.over(occasion)


def test_background_of_a_store_that_is_no_more_configured_goes_silently(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a test with settings of its own: there is nothing to close."""
    monkeypatch.setattr("django_distlock.background.IDLE", 0.01)
    thread_of = Background("gone")
    occasion = object()
    thread_of.expect(occasion)
    thread = thread_of.thread
    assert thread is not None
    thread_of.over(occasion)
    thread.join(60)
    assert not thread.is_alive()
    assert "What was left to the background failed." not in caplog.text


def test_background_does_without_a_thread_where_there_can_be_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And tries again the next time."""
    thread_of = Background("default")
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no more threads")):
        thread_of.expect("a")
    assert "without being renewed" in caplog.text
    done = threading.Event()
    thread_of.do(done.set)
    assert not done.is_set()
    thread_of.expect("b")
    assert done.wait(60)
    thread_of.over("a")
    thread_of.over("b")


def test_background_may_be_needed_while_it_starts() -> None:
    """When the garbage collector closes a generator with a locked block in between."""
    thread_of = Background("default")
    start = threading.Thread.start

    def interrupted_start(thread: threading.Thread) -> None:
        with mock.patch.object(threading.Thread, "start", start):
            thread_of.expect("collected")
        start(thread)

    with mock.patch.object(threading.Thread, "start", interrupted_start):
        thread_of.expect("a")
    done = threading.Event()
    thread_of.do(done.set)
    assert done.wait(60)
    thread_of.over("a")
    thread_of.over("collected")


@on_each_server
def test_release_left_to_the_background_concerns_no_later_transaction(alias: str) -> None:
    """The lock of one that was rolled back may well be lost."""
    with mock.patch.object(Background, "do") as do:
        with suppress(DatabaseError), transaction.atomic(using=alias):
            lease = acquire(alias)
            lease.release()
            connections[alias].close()
    take_away(lease)
    with transaction.atomic(using=alias):
        Counter.objects.using(alias).create()
    assert Counter.objects.using(alias).exists()
    [[finish]] = [call.args for call in do.call_args_list]
    finish()


@on_each_server
def test_release_left_to_the_background_is_done_once(alias: str) -> None:
    """Even if the thread that wanted the lock again was faster."""
    with mock.patch.object(Background, "do") as do:
        with suppress(DatabaseError), transaction.atomic(using=alias):
            acquire(alias).release()
            connections[alias].close()
    lease = acquire(alias)
    [[finish]] = [call.args for call in do.call_args_list]
    finish()
    assert not free_for_others(alias)
    assert lease.release()
