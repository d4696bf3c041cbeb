"""What is left to the background thread, and when it is there."""

import json
import os
import threading
from contextlib import suppress
from unittest import mock

import psutil
import pytest
from django.db import DatabaseError, connections, transaction

from django_distlock import Lease, LockBackendUnavailable, acquire_lock
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.background import Background
from tests.app.models import Counter
from tests.support.concurrency import run, until
from tests.support.databases import committed, on_each_server, sessions
from tests.support.holders import acquire, free_for_others, take_away
from tests.support.scripted_store import ScriptedBackend

pytestmark = committed

IDLE_SERVERS = ("redis", "lock_server", "memcached")


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


def test_loss_is_told_in_time_while_a_renewal_hangs(
    scripted: ScriptedBackend, lost: dict[Lease, str], caplog: pytest.LogCaptureFixture
) -> None:
    """For ever, in a store that knows no time; those acquired meanwhile are told of, too."""
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        goes_on.wait(300)

    scripted.answer("renew", hang)
    first = acquire("default", ttl=0.5)
    try:
        assert hangs.wait(60)
        scripted.owner = ""
        second = acquire("default", "acquired meanwhile", ttl=0.5)
        until(lambda: len(lost) == 2)
    finally:
        goes_on.set()
    assert set(lost) == {first, second}
    assert "was lost: its ttl" in caplog.text


def test_loss_is_told_after_a_renewal_where_there_are_no_more_threads(
    scripted: ScriptedBackend, lost: dict[Lease, str]
) -> None:
    """The thread itself tells then."""
    start, hangs = threading.Thread.start, threading.Event()

    def start_no_more(thread: threading.Thread) -> None:
        if "losses" in thread.name:
            hangs.set()
            raise RuntimeError("no more threads")
        start(thread)

    scripted.answer("renew", *[LockBackendUnavailable("no")] * 100)
    with mock.patch.object(threading.Thread, "start", start_no_more):
        lease = acquire("default", ttl=0.2)
        until(lambda: lease in lost)
    assert hangs.is_set()


@on_each_server
@pytest.mark.parametrize("use", ["refusal", "no renewal", "no ttl"])
def test_idle_sessions_are_closed_whatever_they_were_used_for(
    alias: str, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing needs to be renewed for that."""
    monkeypatch.setattr("django_distlock.background._backgrounds", {})
    close_own_connections()
    before = sessions(alias)
    monkeypatch.setattr("django_distlock.background.IDLE", 0.3)
    lease = acquire(alias, ttl=None) if use == "no ttl" else acquire(alias, renew=False)
    assert use != "refusal" or acquire_lock("a", backend=alias) is None
    until(lambda: sessions(alias) <= before)
    assert lease.release()
    until(lambda: sessions(alias) <= before)


@pytest.mark.parametrize(
    "alias",
    [pytest.param(name, marks=pytest.mark.needs(name)) for name in IDLE_SERVERS],
)
def test_idle_connections_are_closed_without_a_renewal(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every other store that keeps any open."""
    monkeypatch.setattr("django_distlock.background._backgrounds", {})
    monkeypatch.setattr("django_distlock.background.IDLE", 0.3)
    lease = acquire(alias, renew=False)
    assert connections_to(alias)
    until(lambda: not connections_to(alias))
    run(lease.arelease())
    until(lambda: not connections_to(alias))


def connections_to(alias: str) -> int:
    """Return how many connections this process has to the server of this store."""
    place = json.loads(os.environ[f"DISTLOCK_TEST_{alias.upper()}"])
    port = int(place.get("PORT") or place["OPTIONS"]["address"].rpartition(":")[2])
    found = psutil.Process().net_connections("tcp")
    return sum(each.status == "ESTABLISHED" and each.raddr.port == port for each in found)


@on_each_server
def test_call_needs_no_thread_to_close_what_is_idle(
    alias: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is none, it stays open until the end of the process, and nothing is logged."""
    monkeypatch.setattr("django_distlock.background._backgrounds", {})
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no more threads")):
        assert acquire(alias, renew=False).release()
    with mock.patch("django_distlock.background.lacks_threads", return_value=True):
        assert acquire(alias, renew=False).release()
    assert not caplog.records
