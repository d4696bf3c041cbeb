"""Faults between a worker and its database."""

import pytest
from django.db import connections

from django_distlock import LockBackendUnavailable, acquire_lock
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.models import Lock
from tests.support.databases import committed, on_each_server, through_proxy
from tests.support.error_pages import SECRET, page_of_lost_reply
from tests.support.holders import free_for_others
from tests.support.leases import internals
from tests.support.servers import Server

pytestmark = [committed, pytest.mark.once]


@on_each_server
def test_lost_reply_of_a_grant_finds_the_grant(alias: str) -> None:
    """The server granted the lock and the reply was lost: the client retries as the same owner."""
    with through_proxy(alias) as proxy:
        proxy.lose_replies(b"lost reply", 1)
        lease = acquire_lock("lost reply", backend=alias)
        assert lease is not None
        assert proxy.losses == 0
        row = Lock.objects.using(alias).get(semaphore="lost reply")
        assert (row.owner, row.token) == (internals(lease).owner, lease.token)
        assert lease.release()


@on_each_server
def test_grant_is_released_after_two_lost_replies(alias: str) -> None:
    """Unavailable, and the semaphore is free at once."""
    with through_proxy(alias) as proxy:
        proxy.lose_replies(b"lost reply", 2)
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("lost reply", backend=alias)
        assert proxy.losses == 0
        row = Lock.objects.using(alias).get(semaphore="lost reply")
        assert (row.owner, row.token > 0) == ("", True)
        assert acquire_lock("lost reply", backend=alias)


@on_each_server
def test_owner_is_on_no_error_page(alias: str) -> None:
    """DEBUG's page shows every frame's variables, and a driver's frame has the statement."""
    with through_proxy(alias) as proxy:
        proxy.lose_replies(b"lost reply", 2)
        page = page_of_lost_reply(alias)
    assert "lost reply" in page
    assert SECRET not in page


@on_each_server
def test_lost_reply_of_a_release_is_a_release(alias: str) -> None:
    """The second request finds nothing to release; that does not count as a loss."""
    with through_proxy(alias) as proxy:
        lease = acquire_lock("lost reply", backend=alias)
        assert lease is not None
        proxy.lose_replies(b"lost reply", 1)
        assert lease.release() is True
        assert proxy.losses == 0
        assert acquire_lock("lost reply", backend=alias)


@on_each_server
@pytest.mark.usefixtures("durable")
def test_killed_database_is_unavailable_and_keeps_its_locks(
    alias: str, servers: dict[str, Server]
) -> None:
    """Durable where it must be: an answered grant survives."""
    server = servers[alias]
    lease = acquire_lock("1234collectPayment", backend=alias)
    assert lease is not None
    server.kill()
    try:
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("report", backend=alias)
        with pytest.raises(LockBackendUnavailable):
            lease.release()
        assert lease.held
    finally:
        server.start()
        connections[alias].close()
    assert not free_for_others(alias)
    assert lease.release() is True
    assert acquire_lock("1234collectPayment", backend=alias)


@pytest.mark.parametrize(
    ("alias", "statement"),
    [
        pytest.param(
            "postgresql", b"SET SESSION CHARACTERISTICS", marks=pytest.mark.needs("postgresql")
        ),
        pytest.param(
            "mariadb", b"SET innodb_lock_wait_timeout", marks=pytest.mark.needs("mariadb")
        ),
    ],
)
def test_database_that_ends_a_new_session_at_once_is_unavailable(
    alias: str, statement: bytes
) -> None:
    """As one does that shuts down; the error isn't the driver's."""
    with through_proxy(alias) as proxy:
        close_own_connections()
        proxy.lose_replies(statement, 1)
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("1234collectPayment", backend=alias)
        assert proxy.losses == 0
        assert acquire_lock("1234collectPayment", backend=alias)
