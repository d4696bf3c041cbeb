"""What is particular to the lock server's backend: limits, frames, listings, forks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest

from django_distlock import LockBackendUnavailable, acquire_lock, clocks, distributed_lock
from django_distlock.records import ServerStatus
from django_distlock.server.listings import PAGE
from tests.support.concurrency import run
from tests.support.holders import acquire
from tests.support.lock_servers import ALIAS, PATIENCE, locks_of, start_lock_server
from tests.support.processes import forked

if TYPE_CHECKING:
    from django_distlock.backends.server import ServerBackend
    from tests.support.servers import Server


@pytest.mark.needs("lock_server")
def test_ttl_above_the_servers_is_refused_with_the_limit() -> None:
    """The error is neither an outage nor contention."""
    with start_lock_server("--max-ttl", "100") as server, locks_of(server) as store:
        with pytest.raises(ValueError, match=r"ttl is from 0\.001 to 100 seconds, not 100\.5"):
            acquire_lock("1234collectPayment", backend=ALIAS, ttl=100.5)
        assert acquire(ALIAS, ttl=100).release()
        status = store.status()
        assert status["locks"] == 0
        # Editors complete the keys that are declared.
        assert {*status} == {*get_type_hints(ServerStatus)}
        assert all(isinstance(value, int | float) for value in status["limits"].values())


@pytest.mark.needs("lock_server")
def test_server_with_too_many_connections_is_unavailable() -> None:
    """The error says why; processes that have a connection continue."""
    with start_lock_server("--max-connections", "1") as server, locks_of(server):
        lease = acquire(ALIAS)
        with locks_of(server, store_timeout=PATIENCE + 1):  # so it has connections of its own
            with pytest.raises(LockBackendUnavailable, match="1 connections are open"):
                acquire_lock("1234collectPayment", backend=ALIAS)
        with locks_of(server):
            assert lease.release()


@pytest.mark.needs("lock_server")
def test_renewals_fit_into_the_servers_frames() -> None:
    """However small the frames are."""
    with start_lock_server("--max-frame", "600") as server, locks_of(server) as store:
        leases = [acquire(ALIAS, f"lock {number}") for number in range(10)]
        for renewals in (store.renew(leases), run(renew(store, leases))):
            assert [renewals[lease.owner].renewed for lease in leases] == [True] * 10
        assert all(lease.release() for lease in leases)


async def renew(store: ServerBackend, leases: list[Any]) -> dict[str, Any]:
    """Renew in an event loop."""
    return await store.arenew(leases, deadline=store.new_deadline())


@pytest.mark.needs("lock_server")
@pytest.mark.parametrize("release_on_disconnect", [True, False])
def test_renewal_of_nothing_sends_no_request(
    lock_server: Server, release_on_disconnect: bool
) -> None:
    """A renewal of nothing is answered at once."""
    with locks_of(lock_server, release_on_disconnect=release_on_disconnect) as store:
        assert store.renew([]) == {}
        assert run(renew(store, [])) == {}


@pytest.mark.needs("lock_server")
def test_holder_is_shortened_to_what_the_server_takes(lock_server: Server) -> None:
    """It is for people, who still understand it."""
    with (
        locks_of(lock_server) as store,
        distributed_lock("1234collectPayment", backend=ALIAS, label="\ud800" * 200),
    ):
        [lock] = store.held("1234collectPayment", limit=1)
        assert len(lock.holder) == 1000
        assert lock.holder.startswith(r"\ud800")
        assert lock.holder.endswith("…")


@pytest.mark.needs("lock_server")
def test_more_locks_are_listed_than_fit_into_a_page(lock_server: Server) -> None:
    """In the order of their semaphores, all of them or the first ones."""
    names = [f"many {number:04}" for number in range(PAGE + 100)]
    acquire_all = [
        {"do": "acquire", "semaphore": name, "owner": name, "ttl": 60, "holder": ""}
        for name in names
    ]
    release_all = [{"do": "release", "semaphore": name, "owner": name} for name in names]
    with locks_of(lock_server) as store:
        store.server.ask_several(acquire_all, clocks.monotonic() + 30)
        assert [lock.semaphore for lock in store.held("many")] == names
        assert [lock.semaphore for lock in store.held("many", PAGE + 1)] == names[: PAGE + 1]
        assert [lock.semaphore for lock in store.held("many", 2)] == names[:2]
        store.server.ask_several(release_all, clocks.monotonic() + 30)


@pytest.mark.needs("lock_server")
def test_force_release_of_a_released_lock_sends_no_signal(
    lock_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator was too late."""
    with locks_of(lock_server) as store:
        assert not store.force_release("1234collectPayment", 1)
    assert not caplog.records


@pytest.mark.needs("lock_server")
def test_connection_waits_for_nothing_after_its_handshake(lock_server: Server) -> None:
    """The server speaks first, and that message is no answer."""
    with locks_of(lock_server) as store:
        wire = store.server.connect(PATIENCE)
        assert wire.outstanding == 0
        wire.close()


@pytest.mark.needs("lock_server")
def test_forked_child_has_connections_of_its_own(lock_server: Server) -> None:
    """Both sides ask at the same time, each many times, and each gets its own answers."""

    def work() -> None:
        for number in range(300):
            name = f"{threading.get_native_id()} {number}"
            with distributed_lock(name, backend=ALIAS, renew=False) as lease:
                assert lease.semaphore == name
                assert acquire_lock("1234collectPayment", backend=ALIAS) is None

    with locks_of(lock_server):
        lease = acquire(ALIAS)
        assert acquire_lock("1234collectPayment", backend=ALIAS) is None
        with forked(work):
            work()
        assert lease.release()
