"""Faults of Redis servers that keep locks, and of the network before them."""

from __future__ import annotations

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
)
from django_distlock.signals import lock_acquired
from tests.support.concurrency import elsewhere, run, until
from tests.support.holders import acquire, due_now, renewed_since
from tests.support.lossy_proxy import HoldingProxy, LossyProxy, chunks
from tests.support.ports import HOST
from tests.support.redis_servers import (
    SENTINEL_NAME,
    connect,
    fill,
    place,
    start_redis,
    start_redis_replica,
    start_sentinel,
)
from tests.support.redis_stores import (
    ALIAS,
    DJANGO,
    DJANGO_REDIS,
    key_of,
    locks_at,
    locks_of,
    waiting,
)

if TYPE_CHECKING:
    import socket

    from django_distlock import Lease
    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]
LIBRARIES = pytest.mark.parametrize("library", [DJANGO_REDIS, DJANGO])
SOON = 1.0
"""Seconds that a call may take beyond its budget, on a busy machine."""


def is_locked(server: Server, semaphore: str = "a") -> bool:
    """Ask the server itself."""
    with connect(server) as client:
        return bool(client.exists(key_of(semaphore)))


# Lost requests and replies


@LIBRARIES
def test_lost_reply_of_a_grant_finds_the_grant(
    redis_server: Server, redis_proxy: LossyProxy, library: str
) -> None:
    """The second try is the same owner's, and not refused by its own grant (peer defect 15)."""
    with locks_at(redis_proxy.port, library=library), connect(redis_server) as client:
        redis_proxy.lose_replies(b"{a}", 1)
        lease = acquire(ALIAS)
        assert redis_proxy.losses == 0
        assert client.get(f"{key_of()}:token") == str(lease.token)
        assert acquire_lock("a", backend=ALIAS) is None
        assert lease.release() is True
        assert not is_locked(redis_server)


def test_lost_reply_of_a_release_is_a_release(
    redis_server: Server, redis_proxy: LossyProxy
) -> None:
    """The second request finds nothing to release, and tells that from a loss (peer defect 13)."""
    with locks_at(redis_proxy.port):
        lease = acquire(ALIAS)
        redis_proxy.lose_replies(b"{a}", 1)
        assert lease.release() is True
        assert redis_proxy.losses == 0
        assert not is_locked(redis_server)


def test_release_can_be_tried_again(redis_server: Server, redis_proxy: LossyProxy) -> None:
    """Though both requests were lost (peer defect 13)."""
    with locks_at(redis_proxy.port):
        lease = acquire(ALIAS)
        redis_proxy.lose_requests(b"{a}", 2)
        with pytest.raises(LockBackendUnavailable):
            lease.release()
        assert is_locked(redis_server)
        assert lease.release() is True
        assert not is_locked(redis_server)


@pytest.mark.parametrize("what", ["requests", "replies"])
@pytest.mark.parametrize("times", [2, 1000])
def test_acquisition_without_answer_leaves_no_lock(
    redis_server: Server, redis_proxy: LossyProxy, what: str, times: int
) -> None:
    """What may have been granted is given back."""
    with locks_at(redis_proxy.port):
        getattr(redis_proxy, f"lose_{what}")(b"{a}", times)
        before = clocks.monotonic()
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("a", backend=ALIAS)
        assert clocks.monotonic() - before < 2 + SOON
        until(lambda: not is_locked(redis_server))


def test_many_resets_never_let_two_in(redis_server: Server, redis_proxy: LossyProxy) -> None:
    """Of four threads, by connections of which three in ten are reset."""
    inside: list[str] = []
    errors: list[LockBackendUnavailable] = []

    def release(lease: Lease) -> None:
        released = False
        while not released:
            with suppress(LockBackendUnavailable):
                released = lease.release()

    def work(name: str) -> int:
        granted = 0
        while granted < 75:
            try:
                lease = acquire_lock("a", backend=ALIAS, timeout=30, ttl=2)
            except LockBackendUnavailable as error:
                errors.append(error)
                continue
            assert lease is not None
            inside.append(name)
            assert inside == [name]
            inside.remove(name)
            release(lease)
            store.close()  # so that there are new connections to reset
            granted += 1
        return granted

    redis_proxy.reset_connections(0.3, 1_000)
    with locks_at(redis_proxy.port) as store:
        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(work, "abcd")) == 300
        assert redis_proxy.resets > 20
        redis_proxy.reset_connections(0, 0)
        until(lambda: not is_locked(redis_server) and waiting(redis_server) == 0)
        assert acquire(ALIAS, timeout=5).release()


def test_request_that_comes_late_takes_no_lock_away(redis_server: Server) -> None:
    """The network holds an acquisition and its undo: there is no second try."""
    with HoldingProxy(*place(redis_server)) as proxy:
        with locks_at(proxy.port, store={"store_timeout": 1}) as store:
            assert acquire(ALIAS).release()
            store.close()
            [node] = store._servers.all()
            node._idle.append(node.connect(0.92))  # as after a reset of the one before
            proxy.marker = b"{a}"
            with pytest.raises(LockBackendUnavailable):
                acquire_lock("a", backend=ALIAS)
            proxy.may_go_on.set()
            assert proxy.delivered.wait(30)
            assert not is_locked(redis_server)


def test_slow_connection_takes_no_longer_than_the_budget(redis_server: Server) -> None:
    """Though each of its steps would be in time."""
    with HoldingProxy(*place(redis_server)) as proxy:
        proxy.delay = 1
        with locks_at(proxy.port, store={"store_timeout": 1.2}):
            before = clocks.monotonic()
            with pytest.raises(LockBackendUnavailable, match=r"no answer in 1\.2 seconds"):
                acquire_lock("a", backend=ALIAS)
            assert clocks.monotonic() - before < 1.9


# Servers that are down


@pytest.mark.parametrize(
    ("library", "options"),
    [(DJANGO_REDIS, {"IGNORE_EXCEPTIONS": True}), (DJANGO_REDIS, {}), (DJANGO, {})],
)
def test_killed_server_is_unavailable_at_once(
    redis_server: Server, library: str, options: dict[str, Any]
) -> None:
    """And not taken for somebody who holds the lock (peer defects 16, 20)."""
    with locks_of(redis_server, library=library, options=options) as store:
        lease = acquire(ALIAS, ttl=60)
        redis_server.kill()
        try:
            for action in (
                lambda: acquire_lock("b", backend=ALIAS),
                lambda: acquire_lock("b", backend=ALIAS, timeout=30),
                lambda: [*store.held()],
                lambda: store.force_release("a", 1),
                lease.renew,
                lease.release,
            ):
                before = clocks.monotonic()
                with pytest.raises(LockBackendUnavailable, match=f"Redis at {HOST}:"):
                    action()
                assert clocks.monotonic() - before < SOON
            assert lease.held
        finally:
            redis_server.start()
        assert acquire(ALIAS, "b").release()


@LIBRARIES
def test_lease_on_a_server_that_forgets_is_lost_and_told(
    redis_server: Server, lost: dict[Lease, str], library: str
) -> None:
    """With its next renewal, by which its successor may be there; whose token is greater."""
    with locks_of(redis_server, library=library), connect(redis_server) as client:
        for forget in (client.flushdb, client.flushall, lambda: restart(redis_server)):
            lease = acquire(ALIAS, ttl=1)
            forget()
            successor = elsewhere(lambda: acquire(ALIAS))
            assert (successor.token or 0) > (lease.token or 0)
            assert lost_at_last(lease, lost)
            assert lease.release() is False
            assert successor.release() is True


def lost_at_last(lease: Lease, lost: dict[Lease, str]) -> bool:
    """Wait until it is told."""
    until(lambda: lease in lost)
    return not lease.held


def restart(server: Server) -> None:
    """Let it come back empty."""
    server.kill()
    server.start()


def test_renewal_outlasts_lost_connections(
    redis_server: Server, lost: dict[Lease, str], caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on, by another one (peer defects 11, 22)."""
    with locks_of(redis_server), connect(redis_server) as client:
        lease = acquire(ALIAS, ttl=1.5)
        for _ in range(3):
            client.client_kill_filter(_type="normal", skipme=True)
            until(renewed_since([lease]))
        assert not lost
        assert lease.release() is True


def test_evicted_lease_is_lost_and_told(redis_server: Server, lost: dict[Lease, str]) -> None:
    """Not before its next renewal: until then a successor may believe to hold the lock as well."""
    with locks_of(redis_server), connect(redis_server) as client:
        lease = acquire(ALIAS, ttl=30)
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", 3_000_000)
        while is_locked(redis_server):  # Redis takes some keys at random, and of these the oldest
            fill(redis_server, 20_000, "SET", "#", "x" * 100)
        client.config_set("maxmemory", 0)  # or the next lock may be evicted, too
        successor = elsewhere(lambda: acquire(ALIAS, renew=False))
        assert lease.held
        assert (successor.token or 0) > (lease.token or 0)
        due_now([lease])
        until(lambda: lease in lost)
        assert successor.release() is True


@LIBRARIES
def test_server_that_answers_nothing_is_unavailable_in_time(
    redis_server: Server, library: str
) -> None:
    """Though the cache would wait for ever; and what it does later leaves no lock."""
    options = {"SOCKET_TIMEOUT": None} if library == DJANGO_REDIS else {"socket_timeout": None}
    with locks_of(
        redis_server, library=library, options=options, store={"store_timeout": 0.3}
    ) as store:
        lease = acquire(ALIAS, "mine")
        with redis_server.paused():
            for action in (  # by a warm connection, and then by new ones
                lambda: acquire_lock("a", backend=ALIAS),
                lambda: acquire_lock("b", backend=ALIAS),
                lambda: [*store.held()],
                lambda: store.force_release("mine", 1),
                lease.renew,
                lease.release,
            ):
                before = clocks.monotonic()
                with pytest.raises(LockBackendUnavailable):
                    action()
                assert clocks.monotonic() - before < 0.3 + SOON
        assert acquire(ALIAS, "c").release()
        until(lambda: not any(is_locked(redis_server, semaphore) for semaphore in "ab"))
        assert acquire(ALIAS, "a").release()


def test_tasks_do_not_take_each_other_for_a_dead_server(redis_server: Server) -> None:
    """Though most of them stand in line for longer than the server may take for each."""

    async def hold(number: int) -> bool:
        async with distributed_lock(str(number), backend=ALIAS) as lease:
            return lease.held

    async def hold_all() -> list[bool]:
        return await asyncio.gather(*map(hold, range(200)))

    with HoldingProxy(*place(redis_server)) as proxy:
        proxy.delay = 0.08  # of each of 50 answers in a row
        with locks_at(proxy.port, store={"store_timeout": 2}):
            assert all(run(hold_all()))


def test_tasks_in_line_are_told_of_a_dead_server_in_time(redis_server: Server) -> None:
    """All of them, though only some have asked it."""

    async def acquire_all() -> list[Lease | BaseException | None]:
        tries = (aacquire_lock(str(number), backend=ALIAS) for number in range(100))
        return await asyncio.gather(*tries, return_exceptions=True)

    with locks_of(redis_server, store={"store_timeout": 0.3}):
        assert acquire(ALIAS).release()
        with redis_server.paused():
            before = clocks.monotonic()
            answers = run(acquire_all())
            assert clocks.monotonic() - before < 0.3 + SOON
    assert {type(answer) for answer in answers} == {LockBackendUnavailable}


def test_late_acquisition_is_undone(redis_server: Server) -> None:
    """Each of many that the server carries out when nobody waits for the answer any more."""

    def try_it(number: int) -> None:
        with pytest.raises(LockBackendUnavailable):
            acquire_lock(str(number), backend=ALIAS)

    with locks_of(redis_server, store={"store_timeout": 0.5}), connect(redis_server) as client:
        with ThreadPoolExecutor(10) as threads:
            for lease in threads.map(lambda number: acquire(ALIAS, str(number)), range(10)):
                assert lease.release()
            client.flushall()
            with redis_server.paused():
                [*threads.map(try_it, range(10))]
        until(lambda: bool(client.keys("*:token")))  # some were carried out
        until(lambda: not any(is_locked(redis_server, str(number)) for number in range(10)))


def test_cancelled_release_that_fails_is_logged(
    redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody else would know."""

    async def main() -> None:
        lease = await aacquire_lock("a", backend=ALIAS, renew=False)
        assert lease is not None
        with redis_server.paused():
            releasing = asyncio.create_task(lease.arelease())
            await asyncio.sleep(0.05)
            releasing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await releasing
        assert "A task was cancelled; what it asked a lock's store for failed" in caplog.text
        lease.leave_behind()

    with locks_of(redis_server, store={"store_timeout": 0.3}):
        run(main())


def test_server_that_is_loading_is_unavailable() -> None:
    """What it knows isn't all yet."""
    slow = ("key-load-delay 500", "loading-process-events-interval-bytes 1024")
    with start_redis(*slow) as server, locks_of(server):
        fill(server, 3_000, "SET", "#", "x" * 100)
        with connect(server) as client:
            client.save()
        server.kill()
        with ThreadPoolExecutor(1) as thread:
            starting = thread.submit(server.start)
            until(lambda: "loading" in why_not())
            starting.result(60)
        assert acquire(ALIAS).release()


def why_not() -> str:
    """Return why there is no lock now."""
    try:
        acquire(ALIAS, "b").release()
    except LockBackendUnavailable as error:
        return str(error)
    return ""


def test_full_server_is_unavailable(redis_server: Server) -> None:
    """And yet who holds a lock can give it back, or hand it on."""
    with locks_of(redis_server), connect(redis_server) as client:
        lease, other = acquire(ALIAS), acquire(ALIAS, "b")
        with ThreadPoolExecutor(1) as thread:
            waits = thread.submit(acquire, ALIAS, timeout=10)
            until(lambda: waiting(redis_server) == 1)
            client.config_set("maxmemory", 1)
            with pytest.raises(LockBackendUnavailable, match="maxmemory"):
                acquire_lock("c", backend=ALIAS)
            assert acquire_lock("b", backend=ALIAS) is None
            other.renew()
            assert other.release() is True
            assert lease.release() is True
            with suppress(LockBackendUnavailable):
                waits.result(30)
        client.config_set("maxmemory", 0)
        assert acquire(ALIAS, timeout=5).release()


def test_receiver_of_a_signal_has_a_time_of_its_own(redis_server: Server) -> None:
    """However long it takes, and what it asks the store."""
    told: list[Lease] = []

    def audit(*, lease: Lease, **kwargs: Any) -> None:
        if lease.semaphore == "a":
            time.sleep(0.6)
            told.append(acquire(ALIAS, "audit"))

    lock_acquired.connect(audit)
    try:
        with locks_of(redis_server, store={"store_timeout": 0.5}):
            lease = acquire(ALIAS)
            assert [each.release() for each in (*told, lease)] == [True, True]
    finally:
        lock_acquired.disconnect(audit)


# Replicas


def test_replica_may_grant_again_what_it_has_not_heard_of(redis_server: Server) -> None:
    """When it is promoted; its token is greater. Documented: Redis can't do without."""
    with locks_of(redis_server):
        with start_redis_replica(redis_server) as replica, connect(replica) as client:
            client.replicaof("NO", "ONE")
            lease = acquire(ALIAS, renew=False)
            with locks_of(replica):
                successor = elsewhere(lambda: acquire(ALIAS, renew=False))
                assert successor.release()
            assert (successor.token or 0) > (lease.token or 0)
            assert lease.release()


def test_replica_is_no_store(redis_server: Server, lost: dict[Lease, str]) -> None:
    """It can grant nothing, and what it knows may be old."""
    with locks_of(redis_server):
        lease = acquire(ALIAS, renew=False)
        with start_redis_replica(redis_server) as replica, locks_of(replica):
            assert is_locked(replica)
            with pytest.raises(LockBackendUnavailable, match="read only"):
                acquire_lock("b", backend=ALIAS)
            with pytest.raises(LockBackendUnavailable, match="read only"):
                lease.renew()
            with pytest.raises(LockBackendUnavailable, match="read only"):
                lease.release()
        assert lease.release() is True
        assert not lost


@pytest.mark.xfail(strict=True, reason="a script that only reads is carried out by a replica")
def test_replica_is_not_busy(redis_server: Server) -> None:
    """Nor does it know that a lease is lost."""
    with locks_of(redis_server):
        lease = acquire(ALIAS, renew=False)
        with start_redis_replica(redis_server) as replica, locks_of(replica):
            try:
                with pytest.raises(LockBackendUnavailable):
                    acquire_lock("a", backend=ALIAS)
            finally:
                with connect(replica) as client:
                    client.replicaof("NO", "ONE")
                lease.release()


class OldProxy(LossyProxy):
    """Lets a server say what goes wrong in a script as those before version 7 do."""

    newer = re.compile(rb"-([A-Z]+ [^\r]*?)\.? script: ([0-9a-f]+), on @user_script:(\d+)\.")
    older = rb"-ERR Error running script (call to f_\2): @user_script:\3: @user_script: \3: -\1."

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        for source, data in chunks(client, server):
            if source is server:
                client.sendall(self.newer.sub(self.older, data))
            else:
                server.sendall(data)


@pytest.mark.parametrize("kind", [LossyProxy, OldProxy])
@pytest.mark.parametrize("demoted", [("replicaof", HOST, 1), ("min-replicas-to-write", 1)])
def test_call_after_a_failover_finds_the_new_master(
    redis_server: Server, kind: type[LossyProxy], demoted: tuple[Any, ...]
) -> None:
    """Behind an address that leads there: the old one, to which a connection is open, refuses."""
    name, *arguments = demoted
    with (
        start_redis() as promoted,
        kind(*place(redis_server)) as proxy,
        connect(redis_server) as old,
    ):
        with locks_at(proxy.port):
            lease = acquire(ALIAS, renew=False)
            proxy.server = place(promoted)
            if name == "replicaof":
                old.replicaof(*arguments)
            else:
                old.config_set(name, *arguments)
            try:
                with pytest.raises(LockBackendUnavailable, match=r"read only|NOREPLICAS"):
                    acquire_lock("b", backend=ALIAS)
                assert acquire(ALIAS, "b").release()
                assert not is_locked(promoted)
                assert lease.release() is False
            finally:
                old.replicaof("NO", "ONE")
                old.config_set("min-replicas-to-write", 0)


def test_sentinels_tell_where_the_locks_are(redis_server: Server) -> None:
    """After a failover too, without a restart of the site."""
    options: dict[str, Any] = {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_POOL_CLASS": "redis.sentinel.SentinelConnectionPool",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
    }
    with start_redis() as master:
        with start_redis_replica(master), start_sentinel(master) as sentinel:
            options["SENTINELS"] = [place(sentinel)]
            location = f"redis://{SENTINEL_NAME}/0"
            with locks_at("", location=location, options=options):
                lease = acquire(ALIAS, ttl=60)
                assert acquire_lock("a", backend=ALIAS) is None
                with connect(master) as client:
                    assert client.wait(1, 10_000) == 1
                master.kill()
                until(lambda: not why_not())
                assert acquire_lock("a", backend=ALIAS) is None
                lease.renew()
                assert lease.release() is True
