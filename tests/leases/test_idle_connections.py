"""A store's background thread closes idle connections."""

import json
import os
import threading
from collections.abc import Callable
from unittest import mock

import psutil
import pytest

from django_distlock import acquire_lock, lock_backends
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.concurrency.background import background
from tests.support.concurrency import NO_MORE_THREADS, run, until
from tests.support.databases import committed, on_each_server, sessions
from tests.support.holders import acquire

# Idle connections

pytestmark = committed


@pytest.mark.once
@pytest.mark.usefixtures("no_backgrounds")
@on_each_server
@pytest.mark.parametrize("use", ["refusal", "no renewal", "no ttl"])
def test_idle_sessions_are_closed_after_any_use(alias: str, use: str) -> None:
    """Even if no lease needs a renewal."""
    close_own_connections()
    before = sessions(alias)
    lease = acquire(alias, ttl=None) if use == "no ttl" else acquire(alias, renew=False)
    assert use != "refusal" or acquire_lock("1234collectPayment", backend=alias) is None
    until_when_idle(alias, lambda: sessions(alias) <= before)
    assert lease.release()
    until_when_idle(alias, lambda: sessions(alias) <= before)


def until_when_idle(alias: str, condition: Callable[[], bool]) -> None:
    """Wait for the check, with a short idle time."""
    with mock.patch("django_distlock.concurrency.background.IDLE", 0.01):
        background(alias).submit(lambda: None)  # wakes it
        until(condition)


@pytest.mark.once
@pytest.mark.usefixtures("no_backgrounds")
@pytest.mark.parametrize(
    "alias",
    [
        pytest.param(name, marks=pytest.mark.needs(name))
        for name in ("redis", "lock_server", "memcached")
    ],
)
def test_idle_connections_are_closed_without_a_renewal(alias: str) -> None:
    """Connections of every other store that keeps them open."""
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
def test_call_works_without_a_thread_to_close_idle_connections(
    alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a thread, it stays open until the process ends, and nothing is logged."""
    with mock.patch.object(threading.Thread, "start", side_effect=NO_MORE_THREADS):
        assert acquire(alias, renew=False).release()
    with mock.patch("django_distlock.concurrency.background.lacks_threads", return_value=True):
        assert acquire(alias, renew=False).release()
    assert not caplog.records
