"""What a lock server answers of leases that it can't renew, though they are held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.leases import Extension
from tests.support.holders import acquire
from tests.support.lock_client import LockClient, Serving, friend
from tests.support.lock_servers import locks_of, start_lock_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ALIAS = "lock_server"


@pytest.fixture
def small_service() -> Iterator[Serving]:
    """Run a server that knows nothing of before, and has room for two locks of a minute."""
    with Serving(grace=60, max_ttl=60, max_locks=2) as running:
        yield running


@pytest.fixture
def small_client(small_service: Serving) -> Iterator[LockClient]:
    """Return a client of that server."""
    with friend(small_service.endpoint) as connected:
        yield connected


def renew(client: LockClient, *leases: list[Any]) -> list[Any]:
    """Return what becomes of each."""
    ends: list[Any] = client.ask("renew", leases=[*leases])["expires_at"]
    return [True if type(end) is int else end for end in ends]


def test_lease_for_which_there_is_no_room_does_no_harm_to_others(
    small_service: Serving, small_client: LockClient
) -> None:
    """It is held as long as nothing is granted; later, what isn't there is lost."""
    leases = [[name, "me", 60, 7, ""] for name in "abc"]
    assert renew(small_client, *leases) == [True, True, False]
    small_service.let_pass(59)
    assert renew(small_client, *leases) == [True, True, False]
    small_service.let_pass(1)
    assert renew(small_client, *leases) == [True, True, None]


def test_lease_with_the_ttl_of_an_earlier_server_keeps_its_end(
    small_service: Serving, small_client: LockClient
) -> None:
    """If it is held, or may be; nobody else's is held up by that."""
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
        False,
        False,
        True,
    ]
    small_service.let_pass(59)
    assert small_client.acquire("1234collectPayment", "other") == 0
    small_service.let_pass(1)
    assert renew(small_client, long, unknown, lost) == [None, None, None]


@pytest.mark.needs("lock_server")
def test_holder_keeps_a_lease_that_is_longer_than_the_server_lets_it_be() -> None:
    """It ends when it would, and isn't lost before."""
    with start_lock_server("--max-ttl", "60") as server, locks_of(server) as store:
        lease = acquire(ALIAS, ttl=60)
        longer = Extension(lease.semaphore, lease.owner, 3600, lease.token)
        [renewal] = store.renew([longer]).values()
        assert not renewal.renewed
        assert renewal.expires_at is None
        assert lease.release()
