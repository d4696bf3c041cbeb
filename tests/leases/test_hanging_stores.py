"""A store that hangs, and leases that expire during that time."""

import threading
from typing import Any
from unittest import mock

import pytest

from django_distlock import Lease, LockBackendUnavailable
from tests.app.backends import HangingBackend
from tests.support.concurrency import NO_MORE_THREADS, until
from tests.support.databases import committed
from tests.support.holders import acquire, due_now, renewed_since
from tests.support.moved_clock import MovedClock
from tests.support.scripted_store import ScriptedBackend

# A store that hangs

pytestmark = committed


def test_store_that_hangs_does_not_affect_leases_in_another(settings: Any) -> None:
    """Each store has its own thread."""
    path = "tests.app.backends."
    settings.DISTLOCK = {
        "hangs": {"BACKEND": f"{path}HangingBackend"},
        "works": {"BACKEND": f"{path}MinimalBackend"},
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


def test_loss_is_reported_in_time_while_a_renewal_hangs(
    scripted: ScriptedBackend,
    moved_clock: MovedClock,
    lost: dict[Lease, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A store without a time limit hangs for ever; later leases are reported, too."""
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


def test_loss_is_reported_after_a_renewal_where_no_thread_can_start(
    scripted: ScriptedBackend, moved_clock: MovedClock, lost: dict[Lease, str]
) -> None:
    """Then the renewing thread itself sends the signal."""
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
