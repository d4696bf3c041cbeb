"""The life cycle of the threads that listen to a store's server, with a scripted protocol."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from django_distlock import LockBackendUnavailable, clocks
from django_distlock import threads as package_threads
from django_distlock.backends import listening
from django_distlock.backends.listening import CannotListen
from django_distlock.backends.sockets.calls import BLOCKING, IN_LOOP
from django_distlock.backends.sync_driver import run_sync
from django_distlock.threads import NoThread
from tests.support.concurrency import run, until
from tests.support.processes import forked
from tests.support.scripted_listener import PATIENCE, Scripted, Waiting, ready, threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.moved_clock import MovedClock


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """Return a listener of a server that only this test uses."""
    monkeypatch.setattr(listening, "listeners", {})
    found = Scripted.of("The server")
    yield found
    for place in found.places():
        found.remove(place)
    found.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make pauses take no time; collect how long each should have been."""
    found: list[float] = []
    # Not those of a listener that other tests have left to itself.
    monkeypatch.setattr(Scripted, "pause", lambda _, seconds: found.append(seconds))
    return found


def test_process_has_one_listener_for_a_server(listener: Scripted) -> None:
    """Each other server has another one."""
    assert Scripted.of("The server") is listener
    assert Scripted.of("Another server") is not listener


def test_first_waiter_starts_the_thread(listener: Scripted) -> None:
    """It serves later waiters, too."""
    places = [Waiting(number) for number in range(3)]
    for place in places:
        listener.add(place)
    ready(listener)
    ready(listener, in_task=True)
    assert all(place.woken.wait(PATIENCE) for place in places)
    assert listener.is_listening
    assert threads() == 1
    assert len(listener.connections) == 1


def test_idle_thread_ends_and_the_next_waiter_starts_another(
    listener: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closed, too."""
    place = Waiting()
    listener.add(place)
    ready(listener)
    listener.remove(place)
    assert threads() == 1
    monkeypatch.setattr(listening, "IDLE", 0)
    until(lambda: threads() == 0)
    assert listener.closed == [0]
    assert not listener.is_listening
    listener.add(Waiting(2))
    ready(listener)
    assert listener.connections == [[1], [2]]


def test_lost_connection_is_replaced_for_all_waiters(listener: Scripted) -> None:
    """The protocol's failed() is called, and the failure is not logged as one to connect."""
    for number in range(3):
        listener.add(Waiting(number))
    ready(listener)
    listener.breaks.set()
    until(lambda: len(listener.connections) == 2 and listener.is_listening)
    assert listener.connections[1] == [0, 1, 2]
    assert listener.closed == [0]
    assert listener.failures == [("it is broken", True)]


def test_connection_that_lasted_is_replaced_at_once(
    listener: Scripted, pauses: list[float], moved_clock: MovedClock
) -> None:
    """One that did not last, after a pause: else it would be made and lost again and again."""
    listener.add(Waiting())
    ready(listener)
    listener.breaks.set()
    until(lambda: len(listener.connections) == 2 and listener.is_listening)
    assert pauses == [listening.FIRST_PAUSE]
    moved_clock.advance(listening.LONGEST_PAUSE)
    listener.breaks.set()
    until(lambda: len(listener.connections) == 3 and listener.is_listening)
    assert pauses == [listening.FIRST_PAUSE, 0]


def test_pauses_between_failures_grow(
    listener: Scripted, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Up to a second. The failure is logged once."""
    listener.outcomes = [ConnectionRefusedError("it is down")] * 6
    listener.add(Waiting())
    until(lambda: listener.is_listening)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert listener.failures == [("it is down", False)] * 6
    assert caplog.text.count("The server: can't listen, retrying: it is down") == 1


@pytest.mark.parametrize("in_task", [False, True])
def test_callers_outlast_one_failure_and_learn_of_the_next(
    listener: Scripted, monkeypatch: pytest.MonkeyPatch, in_task: bool
) -> None:
    """One failure may happen to any connection."""
    monkeypatch.setattr(listening, "FIRST_PAUSE", 0.01)
    listener.outcomes = [OSError("one")]
    listener.add(Waiting())
    ready(listener, in_task=in_task)
    listener.outcomes = [OSError(f"failure {number}") for number in range(2)]
    listener.breaks.set()
    until(lambda: not listener.is_listening or len(listener.connections) == 2)
    until(lambda: len(listener.connections) == 2)
    listener.close()
    listener.outcomes = [OSError(f"failure {number}") for number in range(2)]
    with pytest.raises(LockBackendUnavailable, match=r"^The server: can't listen: failure 1$"):
        ready(listener, in_task=in_task)


@pytest.mark.parametrize("in_task", [False, True])
def test_callers_wait_no_longer_than_they_may(listener: Scripted, in_task: bool) -> None:
    """The server may not answer."""
    may_connect = threading.Event()

    def hang() -> Any:
        may_connect.wait(PATIENCE)
        raise OSError

    with mock.patch.object(listener, "connect", hang):
        starting = listener.add(Waiting())
        calls = IN_LOOP if in_task else BLOCKING
        waiting = listener.until_ready(calls, starting, clocks.monotonic() + 0.01)
        with pytest.raises(LockBackendUnavailable, match=r"^The server: can't listen: no answer$"):
            run(waiting) if in_task else run_sync(waiting)
        may_connect.set()
    assert not starting.cancelled()


def test_refusal_suspends_listening(listener: Scripted, moved_clock: MovedClock) -> None:
    """Callers get the error; waiters cause another attempt when the suspension is over."""
    listener.outcomes = [CannotListen("it is forbidden")]
    listener.add(Waiting())
    with pytest.raises(CannotListen, match="it is forbidden"):
        ready(listener)
    assert not listener.may_listen()
    assert not listener.is_listening
    until(lambda: listener.failures == [("it is forbidden", False)])
    moved_clock.advance(600)
    until(lambda: listener.is_listening)
    assert listener.may_listen()


def test_thread_ends_when_nobody_waits_for_another_attempt(listener: Scripted) -> None:
    """Even if that attempt would be much later."""
    listener.outcomes = [CannotListen("it is forbidden")]
    place = Waiting()
    listener.add(place)
    with pytest.raises(CannotListen):
        ready(listener)
    listener.remove(place)
    until(lambda: threads() == 0)
    assert not listener.may_listen()


@pytest.mark.parametrize("uwsgi", [False, True])
def test_without_threads_nothing_is_left_behind(listener: Scripted, uwsgi: bool) -> None:
    """As under uWSGI without --enable-threads, or at the limit of threads."""
    lacking = (
        mock.patch.object(package_threads, "lacks_threads", return_value=True)
        if uwsgi
        else mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no more"))
    )
    with lacking, pytest.raises(NoThread, match=r"A thread is needed, but (uWSGI|no more)"):
        listener.add(Waiting())
    assert not listener.places()
    listener.close()  # nothing to wait for
    listener.add(Waiting())
    ready(listener)


def test_only_callers_of_the_present_connection_have_it_replaced(listener: Scripted) -> None:
    """The other callers were late."""
    before = listener.add(Waiting())
    ready(listener)
    listener.breaks.set()
    until(lambda: len(listener.connections) == 2)
    ready(listener)
    assert not listener.reset(before)
    present = listener.start()
    assert listener.reset(present)
    assert not listener.reset(present)
    listener.breaks.set()  # as when the connection is cut
    ready(listener)
    assert len(listener.connections) == 3


def test_closed_listener_starts_again(listener: Scripted) -> None:
    """When the next waiter comes."""
    listener.add(Waiting())
    ready(listener)
    listener.close()
    assert threads() == 0
    assert listener.closed == [0]
    ready(listener)
    assert len(listener.connections) == 2


def test_forked_child_has_listeners_of_its_own(listener: Scripted) -> None:
    """The parent's listener continues."""
    listener.add(Waiting())
    ready(listener)
    parent = os.getpid()

    def listen_in_child() -> None:
        assert os.getpid() != parent
        own = Scripted.of("The server")
        assert own is not listener
        assert not own.places()
        own.add(Waiting())
        ready(own)
        own.close()

    with forked(listen_in_child):
        pass
    assert listener.is_listening
    assert threads() == 1
    assert not listener.closed
