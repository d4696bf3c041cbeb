"""A store's clock moves in steps: no lease ends before its ttl has passed for its holder."""

import time
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from django_distlock import lock_backends
from django_distlock.fields import to_datetime
from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim
from tests.support.databases import DATABASES, committed
from tests.support.holders import acquire
from tests.support.processes import Workers

pytestmark = committed

TRIES = 50
MINUTE = timedelta(minutes=1)

on_clocks_of_milliseconds = pytest.mark.parametrize("alias", ["default", "orm"])
"""SQLite's, by a function of its own and by Django's: rounded down."""


def late_in_a_step() -> datetime:
    """Wait for the last third of a millisecond; return the time, by the clock that SQLite reads."""
    while (now := time.time_ns()) % 1_000_000 < 667_000:
        pass
    return to_datetime(now // 1000)


@on_clocks_of_milliseconds
def test_grant_late_in_a_step_of_the_clock_lasts_its_ttl(alias: str) -> None:
    """Even if the clock shows the beginning of the step."""
    for _ in range(TRIES):
        sent = late_in_a_step()
        lease = acquire(alias, "report", ttl=60)
        assert lease.expires_at is not None
        assert lease.expires_at >= sent + MINUTE
        lease.release()


@on_clocks_of_milliseconds
def test_renewal_late_in_a_step_of_the_clock_lasts_the_ttl(alias: str) -> None:
    """As a grant does."""
    lease = acquire(alias, "report", ttl=60)
    for _ in range(TRIES):
        sent = late_in_a_step()
        lease.renew()
        assert lease.expires_at is not None
        assert lease.expires_at >= sent + MINUTE
    lease.release()


@on_clocks_of_milliseconds
def test_release_late_in_a_step_of_the_clock_keeps_others_out_for_as_long_as_it_says(
    alias: str,
) -> None:
    """A lock kept by min_hold ends no sooner, either."""
    store = lock_backends[alias]
    for number in range(TRIES):
        semaphore, owner = f"{alias} {number}", new_owner()
        assert store.acquire(semaphore, owner, 60, "")
        sent = late_in_a_step()
        assert store.release(LeaseClaim(semaphore, owner, 60), keep=60)
        [kept] = store.held(semaphore)
        assert kept.expires_at is not None
        assert kept.expires_at >= sent + MINUTE


@pytest.mark.once
@pytest.mark.parametrize(
    "alias",
    [
        *DATABASES,
        pytest.param("redis", marks=pytest.mark.needs("redis")),
        pytest.param("lock_server", marks=pytest.mark.needs("lock_server")),
    ],
)
def test_leases_that_expire_are_never_two_processes_at_once(alias: str) -> None:
    """Each holds one until it has expired by the local clock, while the other one tries."""
    with Workers(2, "let_expire", alias, "0.004", "100") as workers:
        held = sorted(hold for result in workers.results() for hold in result)
    assert len(held) >= 20  # on a busy machine some grants come after their ttl
    early = [later[0] - earlier[1] for earlier, later in pairwise(held) if later[0] < earlier[1]]
    assert early == []


@pytest.mark.once
@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("seconds", [0.0010004, 0.3, 1.1, 59.9999996, 60, 86400.5])
def test_no_ttl_is_rounded_down(seconds: float) -> None:
    """A database's microseconds are rounded up."""
    grant = lock_backends["mariadb"].acquire("report", new_owner(), seconds, "")
    assert grant
    assert grant.expires_at is not None
    lasts = (grant.expires_at - grant.acquired_at) / timedelta(microseconds=1)
    assert 0 <= lasts - seconds * 1_000_000 < 1
