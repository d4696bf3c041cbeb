"""What is particular to Memcached: its seconds, its keys, its two clients, and its faults."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import pickle
import re
import secrets
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import psutil
import pytest
from django.core.cache import caches
from django.db import transaction
from django.test import override_settings
from django.views.debug import ExceptionReporter

from django_distlock import (
    InvalidLockBackend,
    Lease,
    LockBackendUnavailable,
    LockLost,
    acquire_lock,
    clocks,
    distributed_lock,
    lock_backends,
)
from django_distlock.acquisitions import new_owner
from django_distlock.backends import memcached, memcached_clients
from django_distlock.backends.base import Owner
from django_distlock.backends.caches import UNSUITED
from django_distlock.backends.memcached import MemcachedBackend
from django_distlock.leases import Extension
from tests.app.models import Customer, Invoice
from tests.support.concurrency import Interrupted, elsewhere, until
from tests.support.databases import committed
from tests.support.documentation import DOCUMENTS, example
from tests.support.holders import acquire, free_for_others
from tests.support.lossy_proxy import LossyProxy
from tests.support.memcached import start_memcached
from tests.support.memcached_stores import configured, find, leading_to
from tests.support.processes import Workers, strike

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.servers import Server

BACKEND = "django_distlock.backends.memcached.MemcachedBackend"
MONTH = 30 * 24 * 60 * 60
SECRET = secrets.token_hex(16)

ALIASES = [
    pytest.param("memcached", marks=pytest.mark.needs("memcached")),
    pytest.param("pylibmc", marks=pytest.mark.needs("pylibmc")),
]
on_each_client = pytest.mark.parametrize("alias", ALIASES)
needs_memcached = pytest.mark.needs("memcached")


@pytest.fixture(autouse=True)
def emptied(settings: Any) -> Iterator[None]:
    """Leave nothing to the next test, and no connection open."""
    yield
    for alias in {"memcached", "pylibmc"} & {*settings.CACHES}:
        assert ask(alias, "flush_all") == ["OK"]
    caches.close_all()
    memcached_clients.close_idle()


@contextmanager
def own_server(alias: str, **options: Any) -> Iterator[Server]:
    """Start a server that may be stopped and killed, and let the store be there."""
    with start_memcached() as server:
        with leading_to(server.settings["PORT"], alias, **options):
            yield server


@contextmanager
def through_proxy(alias: str) -> Iterator[LossyProxy]:
    """Let the store's connections lead through a proxy."""
    from django.conf import settings

    host, port = settings.CACHES[alias]["LOCATION"].split(":")
    with LossyProxy(host, int(port)) as proxy:
        with leading_to(proxy.port, alias):
            yield proxy


def place(alias: str) -> tuple[str, int]:
    from django.conf import settings

    host, port = settings.CACHES[alias]["LOCATION"].split(":")
    return host, int(port)


def ask(alias: str, command: str) -> list[str]:
    """Ask the server in its own words, and return the lines of its answer."""
    with socket.create_connection(place(alias), 10) as connection:
        connection.sendall(f"{command}\r\nversion\r\n".encode())
        answer = b""
        while b"VERSION" not in answer:
            answer += connection.recv(65536)
    return answer.decode().split("\r\n")[:-2]


def key(semaphore: str = "a", prefix: str = "") -> str:
    """Return the key that the semaphore has."""
    return f"{prefix}distlock:{hashlib.sha256(semaphore.encode()).hexdigest()}"


def invalid(alias: str, cache: dict[str, Any] | None = None, **options: Any) -> str:
    """Return what is said about such settings."""
    with pytest.raises(InvalidLockBackend) as caught:
        with configured(alias, cache, **options):
            pytest.fail("they are accepted")
    start = f"DISTLOCK[{alias!r}]: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


# Seconds


@on_each_client
@pytest.mark.parametrize(
    ("ttl", "reason"),
    [
        (None, "MemcachedBackend has no unlimited ttl; give seconds."),
        (0.5, "must be from 1 to 2591998 seconds."),
        (1.5, "ttl is 1.5, but Memcached counts whole seconds: give 2."),
        (MONTH, "must be from 1 to 2591998 seconds."),
        (MONTH * 12, "must be from 1 to 2591998 seconds."),
    ],
)
def test_ttl_that_memcached_cannot_keep_is_refused(
    alias: str, ttl: float | None, reason: str
) -> None:
    """In a call, and in the settings; it says what to give (peer defects 17 and 25)."""
    with pytest.raises(ValueError, match=reason):
        acquire_lock("a", ttl=ttl, backend=alias)
    assert reason in invalid(alias, ttl=ttl)


@on_each_client
@pytest.mark.parametrize(("ttl", "expiry"), [(1, 3), (1.0, 3), (60, 62), (MONTH - 2, MONTH)])
def test_server_keeps_a_lock_for_two_seconds_more(alias: str, ttl: float, expiry: int) -> None:
    """Its clock lags behind by up to that."""
    with ScriptedServer(gets=(0, "END\r\n"), add=(0, "STORED\r\n")) as server:
        with leading_to(server.port, alias) as store:
            assert store.acquire("a", "owner", ttl, "")
    assert server.lines[-1].split() == ["add", key(), "0", str(expiry), "5"]


@on_each_client
@pytest.mark.parametrize("ttl", [60, MONTH - 2])
def test_no_ttl_is_taken_for_a_date(alias: str, ttl: float) -> None:
    """The server says how long it will keep it."""
    lease = acquire(alias, ttl=ttl, renew=False)
    [[_, left]] = [line.split("t") for line in ask(alias, f"mg {key()} t")]
    assert ttl - 50 <= int(left) <= ttl + 2
    assert lease.expires_at is not None
    assert (lease.expires_at - lease.acquired_at).total_seconds() == ttl
    assert lease.release()


@on_each_client
def test_lock_lives_as_long_as_its_holder_believes(alias: str) -> None:
    """Wherever in the server's second it was granted, if its clock ticks in time, more or less."""

    def is_kept(phase: int) -> bool:
        time.sleep(phase / 8)
        store, semaphore, sent = find(alias), f"phase {phase}", clocks.monotonic()
        assert store.acquire(semaphore, "owner", 1, "")
        time.sleep(max(0, sent + 0.8 - clocks.monotonic()))
        refused = store.acquire(semaphore, "another", 1, "") is None
        return refused or clocks.monotonic() >= sent + 1

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(is_kept, range(8))) == [True] * 8


@on_each_client
def test_lock_lives_as_long_as_its_holder_believes_when_the_servers_clock_skips_a_second(
    alias: str,
) -> None:
    """It shows whole seconds since it was set, each 1.001 seconds: now and then it passes over one.

    Here it does so since the server stands still from before it would have set the clock until the
    next second has begun.
    """
    with own_server(alias) as server:
        store, process = find(alias), server.executor.process
        assert process is not None

        def shown() -> str:
            [uptime] = [line for line in ask(alias, "stats") if line.startswith("STAT uptime ")]
            return uptime

        before = shown()
        until(lambda: shown() != before)
        set_at = time.monotonic()
        time.sleep(0.9)
        sent = time.monotonic()
        assert store.acquire("a", "owner", 1, "")
        strike(process, signal.SIGSTOP)
        try:
            time.sleep(max(0, int(set_at) + 2.001 - time.monotonic()))
        finally:
            process.send_signal(signal.SIGCONT)
        until(lambda: store.acquire("a", "another", 1, "") is not None)
        assert time.monotonic() - sent >= 1


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that leases and stores see, to be changed.

    It begins about now, since the thread that renews is there before and after it.
    """
    now = [float(round(clocks.monotonic()))]
    monkeypatch.setattr(clocks, "monotonic", lambda: now[0])
    monkeypatch.setattr(memcached, "monotonic", lambda: now[0])
    monkeypatch.setattr(memcached_clients, "monotonic", lambda: now[0])
    return now


@contextmanager
def granting(alias: str, **arguments: Any) -> Iterator[tuple[Lease, ScriptedServer]]:
    """Grant a lease that is the holder's from then on."""
    with ScriptedServer(gets=(0, "END\r\n"), add=(0, "STORED\r\n")) as server:
        with leading_to(server.port, alias):
            lease = acquire(alias, renew=False, **arguments)
            entry = f"VALUE {key()} 0 32 7\r\n{str.__str__(lease.owner)}\r\nEND\r\n"
            server.answers |= {"gets": (0, entry), "cas": (0, "STORED\r\n")}
            yield lease, server


@on_each_client
@pytest.mark.parametrize(("max_hold", "expiry"), [(0.5, 3), (2, 4), (2.1, 5)])
def test_fraction_that_max_hold_leaves_is_rounded_up(
    alias: str, max_hold: float, expiry: int, now: list[float]
) -> None:
    """Peer defect 25: add() with half a second would be granted twice."""
    with granting(alias, max_hold=max_hold) as (lease, server):
        assert lease.remaining == pytest.approx(max_hold)
    assert server.lines[-1].split() == ["add", key(), "0", str(expiry), "32"]


@on_each_client
def test_renewal_of_what_max_hold_leaves_is_rounded_up(alias: str, now: list[float]) -> None:
    """The last renewal is for a fraction of a second."""
    with granting(alias, ttl=3, max_hold=4) as (lease, server):
        now[0] += 2.5
        lease.renew()
        assert lease.remaining == 1.5
        now[0] += 0.77
        lease.renew()
        assert lease.remaining == pytest.approx(0.73)
    sent = [line.split() for line in server.lines if not line.startswith("gets")]
    assert sent == [
        ["add", key(), "0", "5", "32"],
        ["cas", key(), "0", "4", "32", "7"],
        ["cas", key(), "0", "3", "32", "7"],
    ]


@on_each_client
def test_lock_of_half_a_second_is_free_after_it(alias: str) -> None:
    """And not before."""
    began = clocks.monotonic()
    acquire(alias, max_hold=0.5)
    assert free_for_others(alias, timeout=30)
    assert clocks.monotonic() - began >= 0.5


@on_each_client
@pytest.mark.parametrize("hold", ["min_hold", "max_hold"])
def test_hold_that_memcached_cannot_keep_is_refused(alias: str, hold: str) -> None:
    """It would be taken for a date in 1970, and the lock be free at once."""
    holds: Any = {hold: MONTH}
    with pytest.raises(ValueError, match=f"{hold} is {MONTH}, but must be from .* to 2591998"):
        acquire_lock("a", backend=alias, **holds)


@needs_memcached
@pytest.mark.parametrize("ttl", [None, MONTH, MONTH - 1, MONTH - 1.5])
def test_store_sends_no_date(ttl: float | None) -> None:
    """Whoever calls it past the validation."""
    with pytest.raises(ValueError, match="can't keep anything for"):
        find("memcached").acquire("a", "owner", ttl, "")


@on_each_client
def test_what_min_hold_leaves_is_rounded_up(alias: str, now: list[float]) -> None:
    """What is kept then is nobody's."""
    with granting(alias, min_hold=5) as (lease, server):
        now[0] += 1.75
        assert lease.release()
    assert server.lines[-1].split() == ["cas", key(), "0", "6", "4", "7"]


@on_each_client
def test_min_hold_keeps_others_out(alias: str) -> None:
    """For a fraction of a second, too."""
    began = clocks.monotonic()
    lease = acquire(alias, min_hold=0.5)
    assert lease.release()
    assert free_for_others(alias, timeout=30)
    assert clocks.monotonic() - began >= 0.5


@on_each_client
def test_wait_is_counted_by_the_clock(alias: str) -> None:
    """Peer defects 10 and 18: half a second is half a second, not none and not for ever."""
    lease = acquire(alias)
    began = clocks.monotonic()
    assert elsewhere(lambda: acquire_lock("a", timeout=0.5, backend=alias)) is None
    assert 0.5 <= clocks.monotonic() - began < 30
    assert lease.release()


@on_each_client
def test_killed_holders_lock_is_free_after_its_ttl(alias: str) -> None:
    """And soon, with nobody's help; not before the ttl."""
    with Workers(1, "hold", alias, "1") as workers:
        before = clocks.monotonic()
        [holder] = workers.processes
        assert json.loads(workers.read(holder)) == [None]
        granted = clocks.monotonic()
        strike(holder, signal.SIGKILL)
        until(lambda: bool(acquire_lock("held", backend=alias)))
    assert clocks.monotonic() - before >= 1
    assert clocks.monotonic() - granted < 30


# Keys


@on_each_client
def test_semaphore_is_hashed(alias: str) -> None:
    """Peer defect 24: a name over the limit of 250 bytes isn't cut."""
    longest = "\U0001f512" * 254
    for last in "ab":
        assert acquire(alias, longest + last)
        assert ask(alias, f"mg {key(longest + last)} v")[0].startswith("VA 32")
    assert acquire_lock(longest + "a", backend=alias) is None


@on_each_client
def test_what_is_stored_is_the_owner(alias: str) -> None:
    """As bytes: nothing is pickled, whatever the cache does."""
    lease = acquire(alias)
    assert ask(alias, f"mg {key()} v f")[:2] == ["VA 32 f0", str.__str__(lease.owner)]
    assert lease.release()


@on_each_client
def test_nothing_is_unpickled(alias: str) -> None:
    """Who can write to the server can't make us run his code."""
    trap = pickle.dumps(Trap(), 0).decode()
    assert ask(alias, f"set {key()} 1 0 {len(trap)}\r\n{trap}") == ["STORED"]
    with mock.patch.object(Trap, "sprung") as sprung:
        assert acquire_lock("a", backend=alias) is None
        sprung.assert_not_called()
        pickle.loads(trap.encode())
        sprung.assert_called_once()


class Trap:
    """Is called when it is unpickled."""

    def __reduce__(self) -> Any:
        return spring, ()

    @staticmethod
    def sprung() -> None:
        """Be seen to be called."""


def spring() -> None:
    Trap.sprung()


@on_each_client
def test_key_prefix_counts(alias: str) -> None:
    """Two sites on one server have locks of their own."""
    assert acquire(alias)
    with configured(alias, {"KEY_PREFIX": "site"}):
        assert acquire(alias)
        assert ask(alias, f"mg {key(prefix='site:')} v")[0] == "VA 32"
        assert acquire_lock("a", backend=alias) is None


@on_each_client
def test_version_and_key_function_do_not_count(alias: str) -> None:
    """A new version at a deploy would split each lock in two."""
    assert acquire(alias)
    with configured(alias, {"VERSION": 2, "KEY_FUNCTION": lambda *parts: repr(parts)}):
        assert acquire_lock("a", backend=alias) is None


@on_each_client
def test_clients_own_prefix_counts(alias: str) -> None:
    """As it does for what the site caches."""
    own = {"key_prefix": b"own"} if alias == "memcached" else {"behaviors": {"namespace": "own"}}
    # Django's cache on pylibmc takes a text's object for its bytes: locks don't.
    with configured(alias, {"OPTIONS": own}):
        assert acquire(alias)
        assert ask(alias, f"mg own{key()} v")[0] == "VA 32"
        assert own_prefix_is_counted(alias, own)


def own_prefix_is_counted(alias: str, options: dict[str, Any]) -> bool:
    """Tell whether it makes keys too long that would fit without it."""
    return "take 251 bytes" in invalid(alias, {"KEY_PREFIX": "p" * 174, "OPTIONS": options})


@on_each_client
@pytest.mark.parametrize(
    ("prefix", "bytes_taken"),
    [("p" * 177, 251), ("ä" * 100, 274), ("a b", 77), ("a\n", 76), ("a\x7f", 76)],
)
def test_impossible_key_prefix_is_refused(alias: str, prefix: str, bytes_taken: int) -> None:
    """Before the first lock is asked for."""
    said = invalid(alias, {"KEY_PREFIX": prefix})
    assert said.startswith(f"cache {alias!r} has KEY_PREFIX {prefix!r}, with which keys of locks")
    assert f"take {bytes_taken} bytes" in said


@on_each_client
@pytest.mark.parametrize("prefix", ["p" * 176, "ä" * 88])
def test_longest_key_prefix_is_possible(alias: str, prefix: str) -> None:
    """Keys have 250 bytes then."""
    with configured(alias, {"KEY_PREFIX": prefix}):
        assert acquire(alias).release()


# Settings


@on_each_client
@pytest.mark.parametrize("location", [["a:1", "b:1"], ("a:1", "b:1"), "a:1;b:1", "a:1,b:1", []])
def test_several_servers_are_refused(alias: str, location: Any) -> None:
    """A remap would grant what is held."""
    said = invalid(alias, {"LOCATION": location})
    assert f"cache {alias!r} has {len(location) and 2} servers in its LOCATION, but" in said


@on_each_client
@pytest.mark.parametrize("seconds", [0, -1, 61, "2", True, None, float("nan")])
def test_impossible_store_timeout_is_refused(alias: str, seconds: Any) -> None:
    """It bounds what a hanging server costs."""
    assert invalid(alias, store_timeout=seconds) == "store_timeout must be from 0.01 to 60 seconds."


@on_each_client
def test_server_that_no_client_understands_is_refused(alias: str) -> None:
    """At once, not when the first lock is asked for."""
    said = invalid(alias, {"LOCATION": "127.0.0.1:port"})
    assert said.startswith(f"cache {alias!r} makes no client: ValueError(")


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
        assert acquire_lock("a", backend="memcached") is None
        assert lease.release()
    with configured("memcached", {"OPTIONS": options, "LOCATION": "127.0.0.1:1"}):
        assert caches["memcached"].add("a", 1) is False
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("a", backend="memcached")


@pytest.mark.needs("pylibmc")
def test_pylibmcs_binary_protocol() -> None:
    """Where SASL wants it; its expiry times are unsigned."""
    behaviors = {"no_block": True, "buffer_requests": True, "receive_timeout": 60_000_000}
    with configured("pylibmc", {"OPTIONS": {"binary": True, "behaviors": behaviors}}):
        for keep in (0, 0, 30.5):
            lease = acquire("pylibmc", renew=False)
            assert acquire_lock("a", backend="pylibmc") is None
            lease.renew()
            assert lock_backends["pylibmc"].release(lease, keep)
            assert not lease.release()
        assert acquire_lock("a", backend="pylibmc") is None


# Own release


@on_each_client
def test_renewals_at_the_same_time_do_not_lose_the_lease(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each replaces what the other has read: it looks again whose it is."""
    # Each try that fails is a renewal of another thread's: there are no more than 200.
    monkeypatch.setattr(memcached_clients, "TRIES", 201)
    lease = acquire(alias)

    def renew() -> list[bool]:
        return [lease.owner in lock_backends[alias].renew([lease]) for _ in range(100)]

    with ThreadPoolExecutor(3) as threads:
        renewed = [each.result() for each in [threads.submit(renew) for _ in range(3)]]
    assert renewed == [[True] * 100] * 3
    assert lease.release()


@pytest.mark.parametrize("action", ["acquire", "replace"])
def test_entry_that_was_renewed_meanwhile_is_read_again(action: str) -> None:
    """It is the owner's still."""
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


@on_each_client
def test_restarted_server_has_lost_the_lock_and_the_holder_is_told(
    alias: str, lost: dict[Lease, str]
) -> None:
    """Its successor is left alone, though Memcached counts its changes from 1 again."""
    with own_server(alias) as server:
        lease = acquire(alias, ttl=1)
        background = acquire(alias, "b", ttl=2)
        server.restart()
        successor = acquire(alias)
        with pytest.raises(LockLost):
            lease.renew()
        assert lease.release() is False
        assert lock_backends[alias].release(lease) is False
        until(lambda: background.lost)
        assert set(lost) == {lease, background}
        assert acquire_lock("a", backend=alias) is None
        assert successor.release()


@on_each_client
def test_release_finds_the_lock_gone_after_a_restart(alias: str) -> None:
    """What is asked on a connection that was cut is asked again on a new one."""
    with own_server(alias) as server:
        lease = acquire(alias, renew=False)
        server.restart()
        assert lease.release() is False
        assert lease.lost


@on_each_client
def test_entry_of_before_a_restart_replaces_none_of_after(alias: str) -> None:
    """They have the same number, but not the same connection."""
    with own_server(alias) as server:
        store = find(alias)
        acquire(alias, "warm up", renew=False).release()
        client = store._server().take()
        assert client is not None
        client.add(key().encode(), "earlier", 60)
        earlier = client.read(key().encode())
        assert earlier is not None
        server.restart()
        other = store._server().new(1)
        other.add(key().encode(), "successor", 60)
        with pytest.raises(client.errors):
            client.replace(key().encode(), "earlier", earlier.cas, 60)
        successor = other.read(key().encode())
        assert successor is not None
        assert successor.owner == "successor"
        client.close()
        other.close()


@on_each_client
def test_entry_that_is_gone_is_not_replaced(alias: str) -> None:
    """It has expired since it was read: that is no error."""
    client = find(alias)._server().new(1)
    assert client.add(b"a", "owner", 60)
    entry = client.read(b"a")
    assert entry is not None
    assert ask(alias, "flush_all") == ["OK"]
    assert client.replace(b"a", "owner", entry.cas, 60) is False
    client.close()


# Exclusion


@on_each_client
def test_processes_lose_no_increment(alias: str, tmp_path: Path) -> None:
    """4 processes read a file and write it back, one at a time."""
    file = tmp_path / "counter"
    file.write_text("0")
    with Workers(4, "count", alias, str(file), "20") as workers:
        workers.results()
    assert file.read_text() == "80"


@on_each_client
def test_each_fresh_key_is_granted_to_one_process(alias: str) -> None:
    """Of 4 that try at once for 100."""
    with Workers(4, "grab", alias, "100") as workers:
        granted = [name for names in workers.results() for name in names]
    assert sorted(granted) == sorted(f"fresh {number}" for number in range(100))


@on_each_client
def test_threads_that_hold_in_turn_never_overlap(alias: str) -> None:
    """Real threads, each with what it needs of connections."""
    inside: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            with distributed_lock("a", timeout=60, backend=alias):
                inside.append(number)
                assert inside == [number]
                inside.remove(number)

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, number) for number in range(8)]:
            done.result()


# Busy is not down


@on_each_client
def test_dead_server_is_told_from_a_held_lock(alias: str) -> None:
    """Peer defects 3, 16 and 20: it is no None, and nothing waits for it."""
    with own_server(alias) as server:
        lease = acquire(alias, renew=False)
        assert acquire_lock("a", backend=alias) is None
        server.kill()
        began = clocks.monotonic()
        for timeout in (0, 30, 30):
            with pytest.raises(LockBackendUnavailable) as caught:
                acquire_lock("b", timeout=timeout, backend=alias)
            assert str(caught.value).startswith(f"DISTLOCK[{alias!r}]: ")
        with pytest.raises(LockBackendUnavailable):
            lease.renew()
        with pytest.raises(LockBackendUnavailable):
            lease.release()
        assert clocks.monotonic() - began < 30
        assert lease.held
        server.start()
        assert lease.release() is False
        assert acquire(alias).release()


@on_each_client
def test_hanging_server_costs_little(alias: str, now: list[float]) -> None:
    """On a connection that is open, and on a new one."""
    with own_server(alias) as server:
        store = find(alias)
        assert acquire(alias, "b").release()
        store.store_timeout = 0.4
        process = server.executor.process
        assert process is not None
        strike(process, signal.SIGSTOP)
        try:
            for reply_lost in (True, False):
                began = time.monotonic()
                with pytest.raises(LockBackendUnavailable) as caught:
                    store.acquire("a", "owner", 60, "")
                assert time.monotonic() - began < 30
                assert caught.value.reply_lost is reply_lost
        finally:
            process.send_signal(signal.SIGCONT)
        until(lambda: ask_for(store))


@on_each_client
def test_lease_on_a_hanging_server_is_not_lost(alias: str) -> None:
    """Nor is it on a new connection: what isn't known isn't said."""
    with own_server(alias) as server:
        lease = acquire(alias, renew=False)
        store = find(alias)
        process = server.executor.process
        assert process is not None
        strike(process, signal.SIGSTOP)
        try:
            store.store_timeout = 0.4
            for _ in range(2):
                with pytest.raises(LockBackendUnavailable):
                    store.release(lease)
                with pytest.raises(LockBackendUnavailable):
                    store.renew([lease])
            assert lease.held
        finally:
            process.send_signal(signal.SIGCONT)
        store.store_timeout = 2
        assert lease.release()


def ask_for(store: MemcachedBackend) -> bool:
    """Tell whether it answers again."""
    with suppress(LockBackendUnavailable):
        return store.acquire("a", "owner", 60, "") is not None
    return False


def test_asking_a_server_that_does_not_answer() -> None:
    """It isn't there."""
    store = mock.Mock()
    store.acquire.side_effect = LockBackendUnavailable("gone")
    assert not ask_for(store)


@on_each_client
def test_listener_that_never_answers_costs_little(alias: str) -> None:
    """What was asked first changes nothing: no reply of importance is lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with leading_to(listener.getsockname()[1], alias, store_timeout=0.3) as store:
            began = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable) as caught:
                store.acquire("a", "owner", 60, "")
    assert clocks.monotonic() - began < 30
    assert not caught.value.reply_lost


class HangingClient(memcached_clients.Client):
    """Spends all the time that it is given, by a clock that is set."""

    errors = (TimeoutError,)

    def __init__(self, now: list[float], connecting: float = 0) -> None:
        self.now = now
        self.connecting = connecting
        self.waiting = 0.0

    def limit(self, seconds: float) -> None:
        self.waiting = seconds

    def read(self, key: bytes) -> Any:
        self.now[0] += self.connecting + self.waiting
        raise TimeoutError

    def add(self, key: bytes, owner: str, expiry: int) -> Any:
        self.read(key)

    def close(self) -> None:
        """Have nothing to close."""


@needs_memcached
@pytest.mark.parametrize("idle", [True, False])
def test_server_has_the_store_timeout(
    idle: bool, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To connect, to be asked and to answer; nothing is asked twice that may have been done."""
    began = now[0]
    new = mock.Mock(side_effect=lambda seconds: HangingClient(now, seconds))
    monkeypatch.setattr(memcached_clients.Server, "new", new)
    with configured("memcached", store_timeout=4) as store:
        new.reset_mock()
        if idle:
            store._server().give_back(HangingClient(now))
        with pytest.raises(LockBackendUnavailable) as caught:
            store.acquire("a", "owner", 60, "")
    assert now[0] - began == 4
    assert new.called is not idle
    assert caught.value.reply_lost is idle


@needs_memcached
@pytest.mark.parametrize("idle", [True, False])
def test_tries_and_what_undoes_them_have_one_store_timeout(
    idle: bool, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try of a call, and the release of what may have been granted."""
    began = now[0]
    new = mock.Mock(side_effect=lambda seconds: HangingClient(now, seconds))
    monkeypatch.setattr(memcached_clients.Server, "new", new)
    with configured("memcached", store_timeout=4) as store:
        if idle:
            store._server().give_back(HangingClient(now))
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("a", backend="memcached")
    assert now[0] - began == 4


@needs_memcached
def test_renewal_at_a_hanging_server_has_one_store_timeout(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all leases; but each that is answered shows that the server lives."""
    began = now[0]
    client = HangingClient(now)
    leases = [Extension(name, new_owner(), 60) for name in "abcdefgh"]
    answers = [memcached_clients.Entry(lease.owner, 1) for lease in leases[1::-1]]

    def read(key: bytes) -> Any:
        if not answers:
            return HangingClient.read(client, key)
        now[0] += 3
        return answers.pop()

    monkeypatch.setattr(client, "read", read)
    monkeypatch.setattr(client, "replace", lambda *arguments: True)
    new = mock.Mock(side_effect=lambda seconds: HangingClient(now, seconds))
    monkeypatch.setattr(memcached_clients.Server, "new", new)
    with configured("memcached", store_timeout=4) as store:
        store._server().give_back(client)
        renewals = store.renew(leases)
    assert [renewals[lease.owner].renewed for lease in leases] == [True] * 2 + [False] * 6
    assert now[0] - began == 3 + 3 + 4


class ScriptedServer:
    """Answers each command as it is told to, after so many seconds by a clock that is set."""

    def __init__(self, now: list[float] | None = None, **answers: tuple[float, str]) -> None:
        self.now = now or [0]
        self.answers = answers
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.asked: list[str] = []
        self.lines: list[str] = []
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(30)

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._start(self._serve, self.listener.accept()[0])

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, suppress(OSError):
            for line in lines:
                command = line.split()[0].decode()
                if command not in self.answers:  # the value, or "quit"
                    continue
                self.asked.append(command)
                self.lines.append(line.decode())
                delay, answer = self.answers[command]
                self.now[0] += delay
                connection.sendall(answer.encode())


@on_each_client
def test_several_answers_together_take_the_store_timeout(alias: str, now: list[float]) -> None:
    """Not each of them."""
    answers = {"gets": (8, "END\r\n"), "add": (8, "NOT_STORED\r\n")}
    with ScriptedServer(now, **answers) as server:
        with leading_to(server.port, alias, store_timeout=20) as store:
            with pytest.raises(LockBackendUnavailable, match="timed out"):
                store.acquire("a", "owner", 60, "")
    assert len(server.asked) == 3


def test_nothing_is_asked_when_the_time_is_over() -> None:
    """No client could wait for less than nothing."""
    client = mock.Mock(spec=memcached_clients.Client)
    with pytest.raises(TimeoutError):
        memcached_clients.Conversation(client, clocks.monotonic() - 1).read(b"a")
    client.read.assert_not_called()


@on_each_client
def test_server_that_makes_no_sense_is_unavailable(alias: str) -> None:
    """There is an entry, and there is none: that isn't said to be a held lock."""
    with ScriptedServer(gets=(0, "END\r\n"), add=(0, "NOT_STORED\r\n")) as server:
        with leading_to(server.port, alias) as store:
            with pytest.raises(LockBackendUnavailable, match="10 times") as caught:
                store.acquire("a", "owner", 60, "")
    assert not caught.value.reply_lost
    gets = ["gets"] if alias == "memcached" else ["gets", "gets"]  # see PyLibMCClient
    assert server.asked == [*gets, *["add", *gets] * 10]


@on_each_client
def test_server_that_has_no_memory_left_is_unavailable(alias: str) -> None:
    """It says so where it doesn't evict."""
    full = "SERVER_ERROR out of memory storing object\r\n"
    with ScriptedServer(gets=(0, "END\r\n"), add=(0, full)) as server:
        with leading_to(server.port, alias) as store:
            with pytest.raises(LockBackendUnavailable) as caught:
                store.acquire("a", "owner", 60, "")
    if alias == "memcached":  # pylibmc doesn't tell
        assert not caught.value.reply_lost


@on_each_client
def test_lost_reply_of_a_grant_finds_the_grant(alias: str) -> None:
    """The server has granted, the client was not told: it asks again as the same owner."""
    with through_proxy(alias) as proxy:
        assert acquire(alias, "warm up").release()
        proxy.lose_replies(b"add ", 1)
        lease = acquire(alias)
        assert proxy.losses == 0
        assert acquire_lock("a", backend=alias) is None
        assert lease.release()


@on_each_client
def test_two_lost_replies_give_the_grant_back(alias: str) -> None:
    """Unavailable, and the semaphore is free at once."""
    with through_proxy(alias) as proxy:
        proxy.lose_replies(b"add ", 2)
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("a", backend=alias)
        assert proxy.losses == 0
        assert acquire(alias).release()


@on_each_client
def test_lost_reply_of_a_release_is_a_release(alias: str) -> None:
    """The second request finds nothing to release, and tells it from a loss."""
    with through_proxy(alias) as proxy:
        lease = acquire(alias)
        proxy.lose_replies(b"cas ", 1)
        assert lease.release() is True
        assert proxy.losses == 0
        assert acquire(alias).release()


@on_each_client
def test_connection_that_was_cut_is_replaced(alias: str) -> None:
    """Nobody is told, if it is noticed before anything is changed."""
    with through_proxy(alias) as proxy:
        lease = acquire(alias)
        proxy.lose_requests(b"gets ", 1)
        assert lease.release() is True
        assert proxy.losses == 0


def test_entry_that_somebody_keeps_changing_is_no_loss() -> None:
    """The server is taken for unavailable then."""
    client = mock.Mock(spec=memcached_clients.Client)
    client.read.return_value = memcached_clients.Entry("owner", 1)
    client.replace.return_value = False
    talk = memcached_clients.Conversation(client, clocks.monotonic() + 60)
    with pytest.raises(TimeoutError, match="changed"):
        talk.replace(b"a", "owner", "owner", 60)
    assert client.replace.call_count == memcached_clients.TRIES


@on_each_client
def test_owner_is_on_no_error_page(alias: str) -> None:
    """DEBUG's page shows every frame's variables, and a client's frame has what it sends."""
    with through_proxy(alias) as proxy:
        proxy.lose_replies(b"add ", 2)
        with mock.patch("django_distlock.acquiring.new_owner", return_value=Owner(SECRET)):
            with pytest.raises(LockBackendUnavailable) as caught:
                acquire_lock("lost reply", backend=alias)
    page = ExceptionReporter(None, caught.type, caught.value, caught.tb).get_traceback_html()
    assert "lost reply" in page
    assert SECRET not in page


# Connections


def connections_to(alias: str) -> int:
    """Return how many connections this process has to the server."""
    _, port = place(alias)
    known = psutil.Process().net_connections("tcp")
    return [getattr(each.raddr, "port", None) for each in known].count(port)


@on_each_client
def test_idle_connections_are_few_and_closed(alias: str) -> None:
    """A call takes one of them, and close() closes them."""
    with own_server(alias):
        store = find(alias)
        for _ in range(5):
            assert acquire(alias).release()
        assert connections_to(alias) == 1
        server = store._server()
        clients = [server.new(1) for _ in range(memcached_clients.MOST_IDLE + 2)]
        for client in clients:
            client.read(b"a")
            server.give_back(client)
        assert connections_to(alias) == memcached_clients.MOST_IDLE
        store.close()
        assert connections_to(alias) == 0
        assert acquire(alias).release()


@on_each_client
def test_interrupted_call_leaves_no_connection_with_its_answer(alias: str) -> None:
    """The next call would take it for its own."""
    store = find(alias)
    assert acquire(alias).release()
    client = store._server().take()
    assert client is not None
    store._server().give_back(client)
    with mock.patch.object(client, "add", side_effect=Interrupted), pytest.raises(Interrupted):
        store.acquire("a", "owner", 60, "")
    assert store._server().take() is None


@on_each_client
def test_forked_child_has_connections_of_its_own(alias: str) -> None:
    """And the parent keeps its lease."""
    lease = acquire(alias)
    child = os.fork()
    if not child:
        busy = acquire_lock("a", backend=alias) is None
        os._exit(0 if busy and acquire(alias, "b").release() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert lease.release()


@on_each_client
def test_async_calls(alias: str) -> None:
    """They are made in threads of the store's own."""
    import asyncio

    async def use() -> None:
        async with distributed_lock("a", backend=alias) as lease:
            assert lease.held
            await lease.arenew()

    asyncio.run(use())


# What has no token


@on_each_client
@committed
def test_fenced_write_is_refused(alias: str) -> None:
    """It says that the store gives no tokens."""
    invoice = Invoice.objects.create(customer=Customer.objects.create(pk=1234))
    lease = acquire(alias, "1234collectPayment")
    assert lease.token is None
    for write in (
        lambda: invoice.save(lease=lease),
        lambda: invoice.delete(lease=lease),
        lambda: Invoice.objects.fenced(lease).update(amount=1),
    ):
        with pytest.raises(ValueError, match=f"has no token: its store '{alias}' doesn't"):
            write()
    assert lease.release()


@on_each_client
@committed
def test_sequential_blocks_in_one_transaction_have_one_lease(alias: str) -> None:
    """Nobody else had the lock in between."""
    with transaction.atomic():
        for _ in range(2):
            with distributed_lock("a", backend=alias) as lease:
                assert lease.held
            assert not elsewhere(lambda: acquire_lock("a", backend=alias))
    assert acquire(alias).release()


@on_each_client
@committed
def test_loss_between_two_blocks_is_noticed_without_a_token(alias: str) -> None:
    """Somebody else may have had the lock, and given it back."""
    with pytest.raises(LockLost), transaction.atomic():
        with distributed_lock("a", backend=alias):
            pass
        assert ask(alias, "flush_all") == ["OK"]
        assert elsewhere(lambda: acquire(alias).release())
        with distributed_lock("a", backend=alias):
            pytest.fail("it was taken back")
    assert acquire(alias).release()


# What docs/memcached.md says

DOCUMENT = (DOCUMENTS / "memcached.md").read_text(encoding="utf-8")


@on_each_client
def test_documented_settings_work(alias: str, settings: Any) -> None:
    """With either cache, and without a warning: `default` is on another server."""
    shown = example("memcached.md", "Settings")
    host, port = place(alias)
    here = {"BACKEND": settings.CACHES[alias]["BACKEND"], "LOCATION": f"{host}:{port}"}
    assert here["BACKEND"].rpartition(".")[2] in DOCUMENT
    assert shown.CACHES["locks"].keys() == here.keys()
    caches_here = shown.CACHES | {"locks": here}
    with override_settings(CACHES=caches_here, DISTLOCK=shown.DISTLOCK):
        assert find("default").check() == []
        with distributed_lock("a") as lease:
            assert acquire_lock("a") is None
            lease.renew()
        assert acquire("default").release()


def test_documented_options_are_the_defaults() -> None:
    """Those that a site need not give."""
    options = example("memcached.md", "Settings").DISTLOCK["default"]["OPTIONS"]
    known = inspect.signature(MemcachedBackend).parameters
    optional = {
        name: each.default for name, each in known.items() if name not in ("alias", "cache")
    }
    assert options == {"cache": "locks", **optional}


def test_documented_limits_are_the_stores() -> None:
    """Of the ttl, and of what else isn't possible."""
    shortest, longest = MemcachedBackend.shortest_ttl, MemcachedBackend.longest_ttl
    assert f"A ttl is from {shortest} to {longest} whole seconds" in DOCUMENT
    assert not MemcachedBackend.supports_fencing
    assert not MemcachedBackend.supports_listing
    assert not MemcachedBackend.supports_unlimited_ttl


def test_documented_caches_are_those_that_are_refused() -> None:
    """All of Django's but Memcached's and Redis's."""
    rows = re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert sorted(rows) == sorted(path.rpartition(".")[2] for path in UNSUITED)
