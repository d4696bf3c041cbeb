"""Forked processes: a parent's leases are not its child's."""

import os
import warnings
from typing import Any
from unittest import mock

import pytest
from django.db import connections

from django_distlock import Lease, LockLost, acquire_lock
from django_distlock.concurrency.background import Background, background
from django_distlock.leases.registry import current_registry
from tests.support.concurrency import until
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire, due_now, free_for_others, renewed_since
from tests.support.scripted_store import ScriptedBackend


@committed
@on_each_database
def test_forked_child_does_not_touch_its_parents_leases(alias: str, lost: dict[Lease, str]) -> None:
    """It can't use them, and doesn't renew them; it renews its own leases."""
    lease = acquire(alias)
    connections.close_all()  # a child that closed its copies would end the parent's sessions
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        try:
            outcomes: list[Any] = [lease.held, background(alias).thread, lease.release()]
            with pytest.raises(LockLost, match=f"is process {os.getppid()}'s"):
                lease.check()
            own = acquire(alias, "the child's")
            is_renewed = renewed_since([own])
            due_now([own])
            until(is_renewed)
            outcomes += [own.release(), acquire_lock("1234collectPayment", backend=alias)]
            os.write(writer, repr(outcomes).encode())
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "[False, None, False, True, None]"
    assert not free_for_others(alias)
    assert lease.held
    assert lease.release() is True
    assert not lost


@committed
@on_each_server
def test_forked_childs_copy_is_not_warned_of(alias: str) -> None:
    """The lease belongs to the parent."""
    lease = acquire(alias)
    if not (pid := os.fork()):
        status = 1
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                current_registry()
                assert not lease.held
                assert lease.release() is False
                lease.__del__()
            status = len([each for each in caught if "The lease on" in str(each.message)])
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert lease.held
    assert not free_for_others(alias)
    assert lease.release()


def test_fork_that_calls_no_hooks_is_noticed(
    scripted: ScriptedBackend, default_background: Background
) -> None:
    """Like uWSGI's, by default."""
    default_background.pin("the parent's")
    thread = default_background.thread
    with mock.patch("os.getpid", return_value=-1):
        lease = acquire("default")
        assert default_background.thread not in (None, thread)
        assert len(default_background.renewals) == 1
        lease.release()
