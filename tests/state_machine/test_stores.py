"""Every store keeps the promise, whatever is done to it in whatever order."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial

import pytest

from tests.state_machine.moved_stores import moved_store
from tests.state_machine.profiles import FEWER, PROFILE, run_machine
from tests.state_machine.store_machine import StoreMachine
from tests.support.databases import committed

pytestmark = [committed, pytest.mark.once]

STORES = {
    "memory": [],
    "default": [],
    "orm": [],
    "postgresql": ["postgresql"],
    "orm_postgresql": ["postgresql"],
    "mariadb": ["mariadb"],
    "mysql": ["mariadb"],
    "redis": ["redis"],
    "django_redis_cache": ["redis"],
    "redis_cluster": ["redis_cluster"],
    "memcached": ["memcached"],
    "lock_server": ["lock_server"],
}
"""Each store, and the servers that it needs."""
ASYNC = {"memory", "redis", "redis_cluster", "lock_server"}
"""Stores that async code awaits."""


def runs(kind: str, aliases: set[str]) -> list[object]:
    """Return the parameters of the tests."""
    return [
        pytest.param(alias, kind == "async", id=f"{alias}-{kind}", marks=pytest.mark.needs(*needs))
        for alias, needs in STORES.items()
        if alias in aliases
    ]


@pytest.mark.parametrize(("alias", "is_async"), [*runs("sync", {*STORES}), *runs("async", ASYNC)])
def test_store_keeps_the_promise(
    alias: str, is_async: bool, request: pytest.FixtureRequest
) -> None:
    """The machine compares each answer with the model."""
    profile = PROFILE if alias in ASYNC else FEWER
    with moved_store(alias, request) as moved:
        with asyncio.Runner() if is_async else nullcontext() as runner:
            run_machine(partial(StoreMachine, moved, runner), profile)
        moved.empty([])
