"""The connections of locks to Memcached: their settings, entries and number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from unittest import mock

import psutil
import pytest
from django.core.cache import caches

from django_distlock import LockBackendUnavailable, acquire_lock, clocks, lock_backends
from django_distlock.backends import memcached_clients
from tests.support.concurrency import Interrupted
from tests.support.holders import acquire
from tests.support.memcached_stores import (
    address,
    ask,
    configured,
    key_of,
    memcached_store,
    on_memcached,
)
from tests.support.processes import forked

if TYPE_CHECKING:
    from tests.support.servers import Server

pytestmark = pytest.mark.once
needs_memcached = pytest.mark.needs("memcached")

# What a cache's own settings change


@needs_memcached
def test_caches_own_settings_do_not_hide_errors() -> None:
    """Nor do its retries and serializers matter."""
    options = {
        "ignore_exc": True,
        "use_pooling": True,
        "retry_attempts": 10,
        "dead_timeout": 600,
        "default_noreply": True,
        "timeout": 60,
    }
    with configured("memcached", {"OPTIONS": options}):
        lease = acquire("memcached")
        assert acquire_lock("1234collectPayment", backend="memcached") is None
        assert lease.release()
    with configured("memcached", {"OPTIONS": options, "LOCATION": "127.0.0.1:1"}):
        assert caches["memcached"].add("a", 1) is False
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("1234collectPayment", backend="memcached")


# Entries that others change


@on_memcached
def test_renewals_at_the_same_time_do_not_lose_the_lease(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each replaces the entry that the other has read, so both read the owner again."""
    # A try fails only because of another thread's renewal: of those there are at most 200.
    monkeypatch.setattr(memcached_clients, "MAX_TRIES", 201)
    lease = acquire(alias)

    def renew() -> list[bool]:
        return [lock_backends[alias].renew([lease])[lease.owner].renewed for _ in range(100)]

    with ThreadPoolExecutor(3) as threads:
        renewed = [each.result() for each in [threads.submit(renew) for _ in range(3)]]
    assert renewed == [[True] * 100] * 3
    assert lease.release()


@pytest.mark.parametrize("action", ["acquire", "replace"])
def test_entry_that_was_renewed_since_is_read_again(action: str) -> None:
    """The owner still holds the lock."""
    client = mock.Mock(spec=memcached_clients.Client)
    client.add.return_value = False
    client.read.side_effect = [memcached_clients.Entry("owner", cas) for cas in (1, 2)]
    client.replace.side_effect = [False, True]
    talk = memcached_clients.Conversation(client, clocks.monotonic() + 60)
    arguments = ("owner", 60) if action == "acquire" else ("owner", "owner", 60)
    assert getattr(talk, action)(b"a", *arguments) is True
    assert [each.args for each in client.replace.mock_calls] == [
        (b"a", "owner", cas, 60) for cas in (1, 2)
    ]


def test_entry_that_keeps_changing_is_not_lost() -> None:
    """The server counts as unavailable then."""
    client = mock.Mock(spec=memcached_clients.Client)
    client.read.return_value = memcached_clients.Entry("owner", 1)
    client.replace.return_value = False
    talk = memcached_clients.Conversation(client, clocks.monotonic() + 60)
    with pytest.raises(TimeoutError, match="changed"):
        talk.replace(b"a", "owner", "owner", 60)
    assert client.replace.call_count == memcached_clients.MAX_TRIES


@on_memcached
def test_entry_read_before_a_restart_replaces_none_after_it(
    alias: str, spare_memcached: Server
) -> None:
    """Both entries have the same number, but come by different connections."""
    store, key = memcached_store(alias), key_of().encode()
    acquire(alias, "warm up", renew=False).release()
    client = store.server.take_idle()
    assert client is not None
    client.add(key, "earlier", 60)
    earlier = client.read(key)
    assert earlier is not None
    spare_memcached.kill()
    spare_memcached.start()
    other = store.server.new(60)
    other.add(key, "successor", 60)
    with pytest.raises(client.errors):
        client.replace(key, "earlier", earlier.cas, 60)
    successor = other.read(key)
    assert successor is not None
    assert successor.owner == "successor"
    client.close()
    other.close()


@on_memcached
def test_entry_that_is_gone_is_not_replaced(alias: str) -> None:
    """It has expired since it was read, which is no error."""
    client = memcached_store(alias).server.new(60)
    assert client.add(b"a", "owner", 60)
    entry = client.read(b"a")
    assert entry is not None
    assert ask(alias, "flush_all") == ["OK"]
    assert client.replace(b"a", "owner", entry.cas, 60) is False
    client.close()


# Connections


def connections_to(alias: str) -> int:
    """Return how many connections this process has to the server."""
    _, port = address(alias)
    known = psutil.Process().net_connections("tcp")
    return [getattr(each.raddr, "port", None) for each in known].count(port)


@on_memcached
def test_idle_connections_are_few_and_closed(alias: str, spare_memcached: Server) -> None:
    """A call takes an idle connection, and close() closes them."""
    store = memcached_store(alias)
    for _ in range(5):
        assert acquire(alias, renew=False).release()
    assert connections_to(alias) == 1
    server = store.server
    clients = [server.new(60) for _ in range(memcached_clients.MAX_IDLE + 2)]
    for client in clients:
        client.read(b"a")
        server.put_back(client)
    assert connections_to(alias) == memcached_clients.MAX_IDLE
    store.close()
    assert connections_to(alias) == 0
    assert acquire(alias).release()


@on_memcached
def test_interrupted_call_leaves_no_connection_with_its_answer(alias: str) -> None:
    """The next call would read that answer as its own."""
    store = memcached_store(alias)
    assert acquire(alias).release()
    client = store.server.take_idle()
    assert client is not None
    store.server.put_back(client)
    with mock.patch.object(client, "add", side_effect=Interrupted), pytest.raises(Interrupted):
        store.acquire("1234collectPayment", "owner", 60, "")
    assert store.server.take_idle() is None


@on_memcached
def test_forked_child_has_connections_of_its_own(alias: str) -> None:
    """The parent keeps its lease."""

    def work() -> None:
        assert acquire_lock("1234collectPayment", backend=alias) is None
        assert acquire(alias, "5678collectPayment").release()

    lease = acquire(alias)
    with forked(work):
        pass
    assert lease.release()
