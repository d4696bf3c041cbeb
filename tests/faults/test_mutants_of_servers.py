"""The judge finds each mistake of Redis's scripts and of the lock server. See test_mutants.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.faults.checker import Fault
from tests.faults.missing_servers import skip_if_missing
from tests.faults.mutant_runs import SMALL, shows
from tests.faults.mutants import MUTANT
from tests.faults.stores.lock_server import LockServer
from tests.faults.stores.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.environment import Environment
    from tests.faults.runner import Scale

pytestmark = pytest.mark.once

CRASHING = replace(
    SMALL, seconds=10, actors=6, semaphores=6, ttls=(12.0,), faults=("server_killed",)
)
"""Holders whose leases outlast the server."""


class LastingLeases(LockServer):
    longest = 12.0


@pytest.fixture(scope="module")
def redis(request: pytest.FixtureRequest) -> Iterator[Environment]:
    """Run a server for all mutants."""
    skip_if_missing(request, "redis")
    with RedisServer() as environment:
        yield environment


@pytest.mark.parametrize(
    ("mutant", "fault"),
    [
        ("redis_constant_token", Fault.TOKEN_ORDER),
        ("redis_release_without_owner_check", Fault.OWN_RELEASE),
        ("redis_client_clock", Fault.OVERLAP),
    ],
)
def test_script_with_a_mistake(
    redis: Environment, mutant: str, fault: Fault, tmp_path: Path
) -> None:
    """A short run without faults shows it."""
    assert shows(redis, mutant, SMALL, tmp_path, fault)


@pytest.mark.parametrize(
    ("mutant", "scale", "fault"),
    [
        ("server_constant_token", SMALL, Fault.TOKEN_ORDER),
        ("server_release_without_owner_check", SMALL, Fault.OWN_RELEASE),
        ("server_reclaim_dropped", CRASHING, Fault.LOST_EARLY),
        ("server_grace_dropped", CRASHING, Fault.OVERLAP),
    ],
)
@pytest.mark.needs("lock_server")
def test_lock_server_with_a_mistake(
    mutant: str, scale: Scale, fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short run shows it; the last two are of its restart after a crash."""
    monkeypatch.setenv(MUTANT, mutant)
    with LastingLeases() as environment:
        assert shows(environment, "", scale, tmp_path, fault)
