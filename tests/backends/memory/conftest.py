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
    """Return the table that all threads share, without other tests' locks."""
    running = memory.shared_table(ALIAS)
    running.reset()
    yield running
    running.reset()


@pytest.fixture
def only_when_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep waiters from polling: they get the lock only if they are woken."""
    monkeypatch.setattr(memory.MemoryPlace, "patience", 60)


@pytest.fixture
def table_clock(shared_table: memory.SharedTable) -> TableClock:
    """Stop the table's clock; the test advances it."""
    clock = TableClock()
    shared_table.table = LockTable(monotonic=clock)
    return clock
