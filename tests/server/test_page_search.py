"""Searches of the lock table that take several steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_distlock.records import LeaseClaim, LockQuery
from django_distlock.server import page_search
from django_distlock.server.page_search import PageSearch
from tests.support.lock_client import Serving
from tests.support.lock_tables import World
from tests.support.memory_stores import memory_store

if TYPE_CHECKING:
    import pytest


def test_search_of_many_locks_goes_through_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first names are only a part; locks may come and go meanwhile."""
    monkeypatch.setattr(page_search, "SLICE", 2)
    monkeypatch.setattr(page_search, "FIRST", 5)
    world = World()
    for number in range(9):
        world.acquire("one", f"{number}")
    search = PageSearch(world.table, "", "ONE", 100)
    steps = [search.look_on()]
    world.release("one", "0")
    world.release("one", "8")
    while steps[-1]:
        steps.append(search.look_on())
    assert [each.semaphore for each in search.page(1, 100)] == list("1234567")
    assert len(steps) == 3 + 4


def test_page_is_searched_in_several_steps_through_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the memory's store in one call, and through a server in one request after another."""
    monkeypatch.setattr(page_search, "SLICE", 2)
    query, memory = LockQuery(search="collect", page=2, limit=2), memory_store()
    with Serving() as running, running.locks() as server:
        for store in (server, memory):
            for number in range(5):
                assert store.acquire(f"{number}collectPayment", str(number), 60, "host")
            page = store.page(query)
            assert [each.semaphore for each in page.locks] == ["2collectPayment", "3collectPayment"]
            assert page.found == 5
            for number in range(5):
                lease = LeaseClaim(f"{number}collectPayment", str(number), 60)
                assert store.release(lease)
