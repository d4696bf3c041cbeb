"""One lease that can't be renewed doesn't keep others from being renewed, in any store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError
from redis import Redis

from django_distlock import LockBackendUnavailable, clocks, lock_backends
from django_distlock.backends import memcached_clients
from django_distlock.backends.database import backend as database
from django_distlock.backends.database.sqlite import SQLiteStatements
from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim, RenewalOutcome
from tests.support.concurrency import until
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire, due_now, renewed_since
from tests.support.lock_servers import host_and_port, start_lock_server
from tests.support.lock_servers import locks_at as locks_at_server
from tests.support.lock_servers import locks_of as locks_of_server
from tests.support.lossy_proxy import LossyProxy, chunks
from tests.support.redis_servers import SLOTS, cluster_node, connect, place
from tests.support.redis_stores import ALIAS, count_sent, key_of, locks_by, locks_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from django_distlock.backends.base import BaseLockBackend
    from django_distlock.backends.database.statements import Parameters
    from tests.support.servers import Server

JOBS = "invoices", "payments", "report"
UNSENDABLE: Any = b"a"
"""What no statement can be given: it stands for whatever a database refuses of one lease."""


def granted(store: BaseLockBackend, *names: str) -> list[LeaseClaim]:
    """Return granted leases."""
    claims = [LeaseClaim(name, new_owner(), 60) for name in names]
    for claim in claims:
        assert store.acquire(claim.semaphore, claim.owner, 30, "")
    return claims


def outcomes(store: BaseLockBackend, claims: list[LeaseClaim]) -> str:
    """Return a letter for each: renewed, unknown or lost."""
    renewals = store.renew(claims)
    letters = {RenewalOutcome.RENEWED: "r", RenewalOutcome.HELD: "u", RenewalOutcome.LOST: "l"}
    return "".join(letters[renewals[claim.owner].outcome] for claim in claims)


def reason(store: BaseLockBackend, claims: list[LeaseClaim], number: int) -> str:
    """Return why one of these leases can't be renewed."""
    renewal = store.renew(claims)[claims[number].owner]
    assert not renewal.renewed
    return renewal.reason


# Redis


@pytest.fixture(scope="module")
def whole_cluster() -> Iterator[Server]:
    """Run a cluster of one node, like a cloud's single address for a cluster."""
    with cluster_node().begin() as node:
        with connect(node) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
            until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        yield node


PLACES: list[tuple[str, int]] = []


def plain_client() -> Redis:
    """Return a client that knows nothing of clusters."""
    return Redis(*PLACES[-1])


@pytest.mark.once
@pytest.mark.needs("redis")
def test_leases_are_renewed_at_a_cluster_behind_one_address(
    whole_cluster: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a plain client. After the first refusal, each script has the keys of one slot."""
    PLACES.append(place(whole_cluster))
    with locks_by(client=f"{__name__}.plain_client") as store:
        leases = [acquire(ALIAS, name, ttl=60) for name in ("invoices", "payments", "report")]
        renewed = renewed_since(leases)
        due_now(leases)
        until(renewed)
        sent = count_sent(monkeypatch)
        claims = [*granted(store, "export", "import"), LeaseClaim("lost", new_owner(), 60)]
        sent.clear()
        assert outcomes(store, claims) == "rrl"
        assert sent == [3]
        assert all(lease.release() for lease in leases)


@pytest.mark.once
@pytest.mark.needs("redis")
def test_key_with_something_else_costs_other_leases_nothing(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script stops at that key; then each lease gets its own script, all sent at once."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        claims = granted(store, "invoices", "spoiled", "payments", "lost")
        client.delete(key_of("spoiled"), key_of("lost"))
        client.hset(key_of("spoiled"), "another", "kind")
        sent = count_sent(monkeypatch)
        assert outcomes(store, claims) == "rurl"
        assert sent[-2:] == [4, 1]
        assert "WRONGTYPE" in reason(store, claims, 1)
        assert client.pttl(key_of("payments")) > 30_000
        with pytest.raises(LockBackendUnavailable, match="WRONGTYPE"):
            store.renew(claims[1:2])


@pytest.mark.once
@pytest.mark.needs("redis")
def test_server_that_grants_nothing_now_gets_no_further_requests(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is about no single lease of the batch."""
    with locks_of(redis_server) as store, connect(redis_server) as client:
        claims = granted(store, *JOBS)
        assert outcomes(store, claims) == "rrr"
        client.replicaof("127.0.0.1", 1)
        try:
            sent = count_sent(monkeypatch)
            with pytest.raises(LockBackendUnavailable, match="read only"):
                store.renew(claims)
            assert sent == [1, 1]
        finally:
            client.replicaof("NO", "ONE")


# The lock server


@pytest.fixture(scope="module")
def strict_lock_server() -> Iterator[Server]:
    """Run a lock server for leases up to a minute."""
    with start_lock_server("--max-ttl", "60") as running:
        yield running


@pytest.mark.once
@pytest.mark.needs("lock_server")
@pytest.mark.parametrize("binds", [False, True])
def test_lease_that_a_lock_server_refuses_does_not_affect_others(
    strict_lock_server: Server, binds: bool
) -> None:
    """Such as one of which `max_hold` leaves less than a millisecond."""
    with locks_of_server(strict_lock_server, release_on_disconnect=binds) as store:
        claims = granted(store, *JOBS, "lost")
        assert store.release(claims[3])
        claims[1] = claims[1]._replace(ttl=0.0001)
        assert outcomes(store, claims) == "rurl"
        assert "ttl is from 0.001 to" in reason(store, claims, 1)
        assert all(store.release(claim) for claim in claims[:3])


class RefusingProxy(LossyProxy):
    """Replaces each answer about several leases by an error, as if the server refused them."""

    code = "invalid"

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        rest = b""
        for source, data in chunks(client, server):
            if source is client:
                server.sendall(data)
                continue
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                ends = json.loads(line).get("expires_at")
                is_refused = isinstance(ends, list) and len(ends) > 1
                refusal = json.dumps({"error": self.code, "text": "it is too much"}).encode()
                client.sendall((refusal if is_refused else line) + b"\n")


@pytest.mark.once
@pytest.mark.needs("lock_server")
@pytest.mark.parametrize("binds", [False, True])
@pytest.mark.parametrize("code", ["invalid", "frame", "internal"])
def test_request_that_a_lock_server_refuses_is_made_for_each_lease(
    strict_lock_server: Server, code: str, binds: bool
) -> None:
    """Whatever the reason of the refusal."""
    with RefusingProxy(*host_and_port(strict_lock_server)) as proxy:
        proxy.code = code
        with locks_at_server(strict_lock_server, proxy.port, release_on_disconnect=binds) as store:
            claims = granted(store, *JOBS)
            assert outcomes(store, claims) == "rrr"
            assert all(store.release(claim) for claim in claims)


# Memcached


@pytest.mark.once
@pytest.mark.needs("memcached")
def test_entry_that_keeps_changing_does_not_affect_other_leases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others are renewed on another connection."""
    store = lock_backends["memcached"]
    claims = granted(store, *JOBS, "lost")
    assert store.release(claims[3])
    replace = memcached_clients.Conversation.replace
    changing = claims[1].owner

    def replace_unless_changing(talk: Any, key: bytes, owner: str, *rest: Any) -> bool:
        if owner == changing:
            raise TimeoutError(memcached_clients.KEPT_CHANGING)
        return replace(talk, key, owner, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(memcached_clients.Conversation, "replace", replace_unless_changing)
        assert outcomes(store, claims) == "rurl"
        assert "10 times" in reason(store, claims, 1)
        with pytest.raises(LockBackendUnavailable, match="10 times"):
            store.renew(claims[1:2])
    assert all(store.release(claim) for claim in claims[:3])


# Databases


@committed
@on_each_database
def test_lease_that_a_database_refuses_does_not_affect_others(alias: str) -> None:
    """Then each is renewed by itself."""
    store = lock_backends[alias]
    claims = granted(store, "invoices", "payments", "lost")
    assert store.release(claims[2])
    claims.insert(1, LeaseClaim(UNSENDABLE, new_owner(), 60))
    assert outcomes(store, claims) == "rurl"
    assert "not JSON serializable" in reason(store, claims, 1)
    for number in (1, 2):
        with pytest.raises(TypeError, match="not JSON serializable"):
            store.renew([claims[1]] * number)
    assert all(store.release(claim) for claim in (claims[0], claims[2]))


@committed
@pytest.mark.parametrize("silent", [True, False])
def test_database_that_is_down_is_not_asked_for_each_lease(
    monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """Whether it refuses connections or doesn't answer. It is down after the first batch."""
    store = lock_backends["default"]
    claims = granted(store, *(f"job {number}" for number in range(7)))
    monkeypatch.setattr(database, "BATCH", 2)
    renew, monotonic = SQLiteStatements.renew, clocks.monotonic
    renewed: list[object] = []
    asked: list[object] = []

    def renew_at_first(statements: SQLiteStatements, parameters: Parameters) -> Any:
        if not renewed:
            renewed.append(parameters)
            return renew(statements, parameters)
        asked.append(parameters)
        raise OperationalError("it is down")

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteStatements, "renew", renew_at_first)
        if silent:  # each of these took two seconds
            patch.setattr(clocks, "monotonic", lambda: monotonic() + 2 * len(asked))
        assert outcomes(store, claims) == "rruuuuu"
        assert len(asked) == (1 if silent else 2)
    assert outcomes(store, claims) == "r" * 7
