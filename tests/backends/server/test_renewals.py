"""What a lock server answers of leases that it can't renew, though they are held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockBackendUnavailable
from django_distlock.records import LeaseClaim, RenewalOutcome
from tests.support.concurrency import until
from tests.support.holders import acquire, due_now, renewed_since
from tests.support.lock_client import LockClient, Serving, friend
from tests.support.lock_servers import locks_of, start_lock_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ALIAS = "lock_server"
TOO_LONG = (
    "Its ttl is 3600 seconds, and so longer than the server's --max-ttl, which is 60: "
    "lower the one, or raise the other."
)


@pytest.fixture
def small_service() -> Iterator[Serving]:
    """Run a server without a saved state, with room for two locks of up to a minute."""
    with Serving(grace=60, max_ttl=60, max_locks=2) as running:
        yield running


@pytest.fixture
def small_client(small_service: Serving) -> Iterator[LockClient]:
    """Return a client of that server."""
    with friend(small_service.endpoint) as connected:
        yield connected


def renew(client: LockClient, *leases: list[Any]) -> list[Any]:
    """Return the outcome for each: True, None, or why it can't be renewed."""
    ends: list[Any] = client.ask("renew", leases=[*leases])["expires_at"]
    for end in ends:
        assert type(end) is not dict or end["error"] == "refused"
    return [True if type(end) is int else end["text"] if type(end) is dict else end for end in ends]


def test_lease_without_room_does_not_affect_others(
    small_service: Serving, small_client: LockClient
) -> None:
    """It stays held as long as nothing is granted; after that, it is lost."""
    leases = [[name, "me", 60, 7, ""] for name in "abc"]
    refused = "There are 2 locks already, as many as --max-locks allows."
    assert renew(small_client, *leases) == [True, True, refused]
    small_service.let_pass(59)
    assert renew(small_client, *leases) == [True, True, refused]
    small_service.let_pass(1)
    assert renew(small_client, *leases) == [True, True, None]


def test_lease_with_the_ttl_of_an_earlier_server_keeps_its_end(
    small_service: Serving, small_client: LockClient
) -> None:
    """Whether it is held or may be held; other leases are renewed."""
    assert renew(small_client, ["1234collectPayment", "me", 60, 7, ""]) == [True]
    long, unknown, lost = (
        [name, owner, 3600, 7, ""]
        for name, owner in (
            ("1234collectPayment", "me"),
            ("5678collectPayment", "me"),
            ("1234collectPayment", "other"),
        )
    )
    assert renew(small_client, long, unknown, ["5678collectPayment", "other", 60, 7, ""]) == [
        TOO_LONG,
        TOO_LONG,
        True,
    ]
    small_service.let_pass(59)
    assert small_client.acquire("1234collectPayment", "other") == 0
    small_service.let_pass(1)
    assert renew(small_client, long, unknown, lost) == [None, None, None]


@pytest.mark.needs("lock_server")
def test_holder_keeps_a_lease_above_the_servers_max_ttl() -> None:
    """It ends with its ttl, and isn't lost before."""
    with start_lock_server("--max-ttl", "60") as server, locks_of(server) as store:
        lease = acquire(ALIAS, ttl=60)
        longer = LeaseClaim(lease.semaphore, lease.owner, 3600, lease.token)
        with pytest.raises(LockBackendUnavailable, match=TOO_LONG):
            store.renew([longer])
        assert lease.held
        other = acquire(ALIAS, "5678collectPayment", ttl=60)
        renewals = store.renew([other, longer])
        assert renewals[other.owner].renewed
        assert renewals[lease.owner].outcome is RenewalOutcome.HELD
        assert renewals[lease.owner].expires_at is None
        assert TOO_LONG in renewals[lease.owner].reason
        assert lease.release()
        assert other.release()


@pytest.mark.needs("lock_server")
def test_log_says_why_a_lease_is_not_renewed(caplog: pytest.LogCaptureFixture) -> None:
    """After a restart with a shorter --max-ttl. It says so once, and the holder keeps the lease."""
    with start_lock_server("--max-ttl", "3600") as before:
        with locks_of(before):
            lease, other = acquire(ALIAS, ttl=3600), acquire(ALIAS, "5678collectPayment", ttl=60)
            command = before.executor.command_parts
            assert isinstance(command, list)
            before.stop()
            command[command.index("3600")] = "60"
            before.start()
            renewed = renewed_since([other])
            for _ in range(3):
                due_now([lease, other])
                until(renewed)
            assert lease.held
            with pytest.raises(LockBackendUnavailable, match=TOO_LONG):
                lease.renew()
            with pytest.raises(ValueError, match=r"from 0\.001 to 60 seconds, not 3600"):
                acquire(ALIAS, "9012collectPayment", ttl=3600)
            assert lease.release()
            assert other.release()
    # While the server is down, that may be logged as well.
    [warning] = [text for text in caplog.messages if TOO_LONG in text]
    assert "'1234collectPayment'" in warning
