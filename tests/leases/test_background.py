"""The background thread of a store: when it is there, what it survives, what is left to it."""

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest import mock

import psutil
import pytest
from django.db import DatabaseError, connections, transaction

from django_distlock import Lease, LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.concurrency.background import Background, background
from tests.app.backends import HangingBackend
from tests.app.models import Counter
from tests.support.concurrency import run, until
from tests.support.databases import committed, on_each_server, sessions
from tests.support.holders import acquire, due_now, free_for_others, renewed_since, take_away
from tests.support.moved_clock import MovedClock
from tests.support.scripted_store import ScriptedBackend

pytestmark = committed

IDLE_SERVERS = ("redis", "lock_server", "memcached")
NO_MORE_THREADS = RuntimeError("can't start new thread")


# When the thread is there


def test_thread_is_there_for_who_needs_it(
    scripted: ScriptedBackend, default_background: Background
) -> None:
    """Not for a lease without end, nor for one that is not to be renewed."""
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
    """And a long one doesn't."""
    first = acquire("default", "1234collectPayment", ttl=60)
    until(lambda: default_background.scans_at == first.due)
    first.release()
    second = acquire("default", "1234collectPayment", ttl=90)
    assert default_background.scans_at == first.due
    second.release()
    third = acquire("default", "1234collectPayment", ttl=30)
    until(lambda: default_background.scans_at == third.due)
    third.release()


def test_background_thread_goes_when_nothing_is_expected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And no failure of some work ends it before."""
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
        until(lambda: looks.call_count > 5)  # after each of which it could have ended
    assert thread.is_alive()
    own.unpin(occasion)
    thread.join(60)
    assert not thread.is_alive()
    own.pin(occasion)
    assert own.thread is not thread
    own.unpin(occasion)


def test_background_of_a_store_that_is_no_more_configured_goes_silently(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a test with settings of its own: there is nothing to close."""
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
    """And tries again the next time."""
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
    """When the garbage collector closes a generator with a locked block in between."""
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
    """After the time at which it would have renewed what has been released since."""
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


def test_uwsgi_without_threads_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its workers never run a thread of Python's unless they are told to."""
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


def test_thread_survives_what_a_receiver_does_to_it(
    scripted: ScriptedBackend, default_background: Background, caplog: pytest.LogCaptureFixture
) -> None:
    """Even sys.exit()."""
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


# A store that hangs


def test_store_that_hangs_costs_no_lease_in_another(settings: Any) -> None:
    """Each store has a thread of its own."""
    path = "tests.app.backends."
    settings.DISTLOCK = {
        "hangs": {"BACKEND": f"{path}HangingBackend"},
        "works": {"BACKEND": f"{path}ModestBackend"},
    }
    HangingBackend.may_go_on.clear()
    try:
        hanging = acquire("hangs", "held where it hangs")
        working = acquire("works", "held where it works")
        end = hanging.expires_at
        due_now([hanging])
        due_now([working])
        until(renewed_since([working]))
        assert working.release() is True
        assert hanging.expires_at == end
    finally:
        HangingBackend.may_go_on.set()
    until(renewed_since([hanging]))
    assert hanging.release() is True


def test_loss_is_told_in_time_while_a_renewal_hangs(
    scripted: ScriptedBackend,
    moved_clock: MovedClock,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """For ever, in a store that knows no time; those acquired meanwhile are told of, too."""
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        goes_on.wait(300)

    scripted.answer("renew", hang)
    first = acquire("default", "acquired before", ttl=60)
    due_now([first])
    try:
        assert hangs.wait(60)
        scripted.owner = ""
        second = acquire("default", "acquired meanwhile", ttl=60)
        moved_clock.expire(second)
        until(lambda: len(lost) == 2)
    finally:
        goes_on.set()
    assert set(lost) == {first, second}
    assert "was lost: its ttl" in caplog.text


def test_loss_is_told_after_a_renewal_where_there_are_no_more_threads(
    scripted: ScriptedBackend, moved_clock: MovedClock, lost: dict[Lease, str]
) -> None:
    """The thread itself tells then."""
    start, refused = threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        refused.set()
        raise NO_MORE_THREADS

    def start_no_more(thread: threading.Thread) -> None:
        (refuse if "losses" in thread.name else start)(thread)

    lease = acquire("default", ttl=60)

    def expire() -> None:
        moved_clock.expire(lease)
        raise LockBackendUnavailable("no")

    scripted.answer("renew", expire)
    with mock.patch.object(threading.Thread, "start", start_no_more):
        due_now([lease])
        until(lambda: lease in lost)
    assert refused.is_set()


# What is left to it


@on_each_server
def test_release_left_to_the_background_concerns_no_later_transaction(alias: str) -> None:
    """The lock of one that was rolled back may well be lost."""
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
    """Even if the thread that wanted the lock again was faster."""
    with mock.patch.object(Background, "submit") as submit:
        with suppress(DatabaseError), transaction.atomic(using=alias):
            acquire(alias).release()
            connections[alias].close()
    lease = acquire(alias)
    [[complete]] = [call.args for call in submit.call_args_list]
    complete()
    assert not free_for_others(alias)
    assert lease.release()


# What is closed when nobody uses it


@pytest.mark.once
@pytest.mark.usefixtures("no_backgrounds")
@on_each_server
@pytest.mark.parametrize("use", ["refusal", "no renewal", "no ttl"])
def test_idle_sessions_are_closed_whatever_they_were_used_for(alias: str, use: str) -> None:
    """Nothing needs to be renewed for that."""
    close_own_connections()
    before = sessions(alias)
    lease = acquire(alias, ttl=None) if use == "no ttl" else acquire(alias, renew=False)
    assert use != "refusal" or acquire_lock("1234collectPayment", backend=alias) is None
    until_when_idle(alias, lambda: sessions(alias) <= before)
    assert lease.release()
    until_when_idle(alias, lambda: sessions(alias) <= before)


def until_when_idle(alias: str, condition: Callable[[], bool]) -> None:
    """Wait for what happens when a store has not been used for a while, which is short."""
    with mock.patch("django_distlock.concurrency.background.IDLE", 0.01):
        background(alias).submit(lambda: None)  # wakes it
        until(condition)


@pytest.mark.once
@pytest.mark.usefixtures("no_backgrounds")
@pytest.mark.parametrize(
    "alias",
    [pytest.param(name, marks=pytest.mark.needs(name)) for name in IDLE_SERVERS],
)
def test_idle_connections_are_closed_without_a_renewal(alias: str) -> None:
    """Of every other store that keeps any open."""
    lock_backends[alias].close()
    others = connections_to(alias)  # of caches, say
    lease = acquire(alias, renew=False)
    assert connections_to(alias) > others
    until_when_idle(alias, lambda: connections_to(alias) <= others)
    run(lease.arelease())
    until_when_idle(alias, lambda: connections_to(alias) <= others)


def connections_to(alias: str) -> int:
    """Return how many connections this process has to the server of this store."""
    place = json.loads(os.environ[f"DISTLOCK_TEST_{alias.upper()}"])
    port = int(place.get("PORT") or place["OPTIONS"]["address"].rpartition(":")[2])
    found = psutil.Process().net_connections("tcp")
    return sum(each.status == "ESTABLISHED" and each.raddr.port == port for each in found)


@pytest.mark.usefixtures("no_backgrounds")
@on_each_server
def test_call_needs_no_thread_to_close_what_is_idle(
    alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is none, it stays open until the end of the process, and nothing is logged."""
    with mock.patch.object(threading.Thread, "start", side_effect=NO_MORE_THREADS):
        assert acquire(alias, renew=False).release()
    with mock.patch("django_distlock.concurrency.background.lacks_threads", return_value=True):
        assert acquire(alias, renew=False).release()
    assert not caplog.records
