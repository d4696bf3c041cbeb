"""What each store's actions cost in round trips, counted by a proxy before its server."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest
from django.db import connections

from django_distlock import acquire_lock
from tests.support import lock_servers, memcached_stores, redis_stores
from tests.support.databases import committed, reached_at
from tests.support.holders import acquire
from tests.support.lossy_proxy import CountingProxy
from tests.support.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.servers import Server

pytestmark = [committed, pytest.mark.once]


class Costs(NamedTuple):
    """The round trips of each action."""

    grant: int
    refusal: int
    release: int


# MySQL has no RETURNING: it reads the row that it changed, and tries to insert one that it found
# held. Memcached's ADD does not say whose the lock is: a try that finds one asks whether it is its
# own, whose reply was lost; and a release reads the owner before it replaces it.
COSTS = {
    "postgresql": Costs(grant=1, refusal=1, release=1),
    "mariadb": Costs(grant=1, refusal=1, release=1),
    "mysql": Costs(grant=2, refusal=2, release=1),
    "redis": Costs(grant=1, refusal=1, release=1),
    "lock_server": Costs(grant=1, refusal=1, release=1),
    "memcached": Costs(grant=1, refusal=2, release=2),
}
SERVERS = {"mysql": "mariadb"}
"""The server and database of a store, if they have another name."""


class Counted(NamedTuple):
    """A store that is reached through a proxy."""

    name: str
    alias: str
    proxy: CountingProxy

    def cost(self, action: Callable[[], object]) -> int:
        """Return the round trips that the action takes."""
        before = self.proxy.round_trips
        action()
        return self.proxy.round_trips - before


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.needs(SERVERS.get(name, name))) for name in COSTS]
)
def counted(request: pytest.FixtureRequest) -> Iterator[Counted]:
    """Reach the store through a proxy that counts."""
    name = request.param
    with ExitStack() as stack:

        def before(host: str, port: int) -> CountingProxy:
            return stack.enter_context(CountingProxy(host, port))

        def spare(fixture: str) -> Server:
            found: Server = request.getfixturevalue(fixture)
            return found

        alias = name
        match name:
            case "redis":
                proxy = before(HOST, spare("redis_server").port)
                alias = redis_stores.ALIAS
                stack.enter_context(redis_stores.locks_at(proxy.port))
            case "lock_server":
                server = spare("spare_lock_server")
                proxy, alias = before(HOST, server.port), lock_servers.ALIAS
                stack.enter_context(lock_servers.locks_at(server, proxy.port))
            case "memcached":
                proxy = before(*memcached_stores.address(name))
                stack.enter_context(memcached_stores.leading_to(proxy.port, name))
            case _:
                database = SERVERS.get(name, name)
                settings = connections[database].settings_dict
                proxy = before(settings["HOST"], int(settings["PORT"]))
                stack.enter_context(reached_at(database, proxy))
        acquire(alias, "warm up").release()
        yield Counted(name, alias, proxy)


def test_each_action_takes_as_few_round_trips_as_the_store_allows(counted: Counted) -> None:
    """A refused try takes one on all but MySQL and Memcached, and yet may tell who holds it."""

    def grant() -> None:
        leases.append(acquire(counted.alias, renew=False))

    def refuse() -> None:
        assert acquire_lock("1234collectPayment", backend=counted.alias) is None

    leases = [acquire(counted.alias)]  # a new lock's row may cost more
    leases.pop().release()
    costs = Costs(
        grant=counted.cost(grant),
        refusal=counted.cost(refuse),
        release=counted.cost(leases[0].release),
    )
    assert costs == COSTS[counted.name]
