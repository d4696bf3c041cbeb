"""Fixtures for tests of the lock server from the outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.concurrency import until
from tests.support.lock_client import Endpoint, LockClient, endpoint_of, friend
from tests.support.lock_servers import KINDS, flawless_lock_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server


@pytest.fixture(scope="module")
def quiet_lock_server() -> Iterator[Server]:
    """Run a server that only this module uses."""
    with flawless_lock_server() as running:
        yield running


@pytest.fixture
def quiet_endpoint(quiet_lock_server: Server) -> Iterator[Endpoint]:
    """Return that server's address and secret; the test has to leave it without locks."""
    endpoint = endpoint_of(quiet_lock_server)
    yield endpoint
    with friend(endpoint) as client:
        until(lambda: client.ask("status")["connections"] == 1)
        status = client.ask("status")
        assert (status["locks"], status["waiters"], status["processes"]) == (0, 0, 0)


@pytest.fixture
def quiet_client(quiet_endpoint: Endpoint) -> Iterator[LockClient]:
    """Return a client of that server."""
    with friend(quiet_endpoint) as connected:
        yield connected


@pytest.fixture(params=KINDS[:2])
def each_endpoint(servers: dict[str, Server], request: pytest.FixtureRequest) -> Endpoint:
    """Return a server's endpoint, over TCP and a unix socket in turn."""
    return endpoint_of(servers[request.param])


@pytest.fixture
def endpoint(servers: dict[str, Server]) -> Endpoint:
    """Return a server's endpoint over TCP."""
    return endpoint_of(servers["lock_server"])


@pytest.fixture
def lock_client(endpoint: Endpoint) -> Iterator[LockClient]:
    """Return a client of that server."""
    with friend(endpoint) as connected:
        yield connected


@pytest.fixture(scope="module")
def roomy() -> Iterator[Server]:
    """Run a server that allows a minute for the handshake."""
    with flawless_lock_server("--handshake", "60") as running:
        yield running


@pytest.fixture(scope="module")
def tight() -> Iterator[Server]:
    """Run a server with small limits."""
    limits = {
        "connections": 10,
        "locks": 5,
        "waiters": 2,
        "all-waiters": 4,
        "ttl": 10,
        "frame": 1_000,
    }
    arguments = [f"--max-{name}={most}" for name, most in limits.items()]
    with flawless_lock_server("--handshake=60", *arguments) as running:
        yield running


@pytest.fixture
def tight_client(tight: Server) -> Iterator[LockClient]:
    """Return a client of the server with small limits, when all others have left."""
    with friend(endpoint_of(tight)) as connected:
        until(lambda: connected.ask("status")["connections"] == 1)
        yield connected
