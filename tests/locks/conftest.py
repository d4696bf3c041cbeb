"""Fixtures for the tests of locks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from django_distlock import clocks, lock_backends
from django_distlock.locks import waiting
from tests.support.signals import SentSignals

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def in_memory() -> Iterator[None]:
    """Keep the locks in memory: a wrong argument is wrong for every store."""
    memory = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
    with override_settings(DISTLOCK={"default": memory}):
        yield
        store: Any = lock_backends["default"]
        held = [*store.held()]
        store.clear()
        assert held == []


@pytest.fixture
def signals_sent() -> Iterator[SentSignals]:
    """Collect the signals that are sent."""
    signals_sent = SentSignals()
    yield signals_sent
    signals_sent.stop()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stop the clock except in sleeps and pauses; collect the pauses between two tries."""
    now, paused = [1000.0], list[float]()

    async def pause(waiter: waiting.WaitingThread, seconds: float) -> None:
        paused.append(seconds)
        now[0] += seconds

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(clocks, "monotonic", lambda: now[0])
    monkeypatch.setattr(waiting.WaitingThread, "pause", pause)
    return paused
