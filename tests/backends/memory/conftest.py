"""Fixtures for what is particular to the memory backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from django_distlock.backends import memory
from django_distlock.server.table import LockTable
from tests.support.memory_stores import ALIAS, TableClock

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def shared_table() -> Iterator[memory.SharedTable]:
    """Return what the threads share, with no locks of other tests."""
    running = memory.shared_table(ALIAS)
    running.reset()
    yield running
    running.reset()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody who waits look by himself: he gets the lock if he is woken, or not at all."""
    monkeypatch.setattr(memory.MemoryPlace, "patience", 60)


@pytest.fixture
def table_clock(shared_table: memory.SharedTable) -> TableClock:
    """Let the table's time pass only when it is told to."""
    clock = TableClock()
    shared_table.table = LockTable(monotonic=clock)
    return clock
