"""A store that shows the admin what a test wants."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn
from unittest import mock

from django.test import override_settings

from django_distlock import LockBackendUnavailable
from django_distlock.backends.operations import ListingStore, PausingStore
from django_distlock.records import LockInfo, LockPage, LockQuery, LockState, Pause, WaiterInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DOWN = LockBackendUnavailable("Error 111 connecting to 10.0.0.7:6379. Connection refused.")


def a_lock(semaphore: str, **values: Any) -> LockInfo:
    """Return a lock that was acquired two hours ago, and renewed four seconds ago."""
    known: dict[str, Any] = {
        "state": LockState.HELD,
        "token": 1796006054951302,
        "holder": "collect payment (web1 pid 7 MainThread)",
        "acquired_at": NOW - 2 * HOUR,
        "expires_at": NOW + 56 * SECOND,
        "seen_at": NOW,
        "renewed_at": NOW - 4 * SECOND,
        "waiting": 2,
    }
    return LockInfo(semaphore=semaphore, **{**known, **values})


def a_stale_lock(semaphore: str, **values: Any) -> LockInfo:
    """Return a lock whose lease expired an hour ago."""
    return a_lock(
        semaphore,
        **{
            "state": LockState.STALE,
            "expires_at": NOW - HOUR,
            "renewed_at": NOW - HOUR - 60 * SECOND,
            "waiting": 0,
            **values,
        },
    )


class ShownBackend(ListingStore, PausingStore):
    """Has the locks that `known` says, and grants none. It counts what it is asked."""

    lists_renewals = True
    known: Shown

    def acquire(self, *arguments: Any) -> NoReturn:
        raise NotImplementedError

    def renew(self, *arguments: Any) -> NoReturn:
        raise NotImplementedError

    def release(self, *arguments: Any) -> NoReturn:
        raise NotImplementedError

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        self.known.ask("held")
        return iter(
            [lock for lock in self.known.locks if lock.semaphore.startswith(prefix)][:limit]
        )

    def find(self, semaphore: str) -> LockInfo | None:
        self.known.ask("find", semaphore)
        return super().find(semaphore)

    def page(self, query: LockQuery) -> LockPage:
        self.known.ask("page")
        self.known.queries.append(query)
        return replace(super().page(query), **self.known.page)

    def waiters(self, semaphore: str) -> list[WaiterInfo] | None:
        self.known.ask("waiters")
        return self.known.waiters

    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        self.known.ask("force_release", semaphore)
        for lock in self.known.locks:
            if (lock.semaphore, lock.token, lock.state) == (semaphore, token, LockState.HELD):
                self.known.locks.remove(lock)
                self.send_force_released(semaphore, token, by)
                return True
        return False

    def pause(self, prefix: str, seconds: float | None = None, **values: Any) -> NoReturn:
        raise NotImplementedError

    def resume(self, prefix: str) -> NoReturn:
        raise NotImplementedError

    def pauses(self) -> list[Pause]:
        self.known.ask("pauses")
        return self.known.pauses


class RedisBackend(ShownBackend):
    """The same, by a name that a picture may show."""


class Shown:
    """What the store has. `failing` is the call, or the semaphore, for which it is down."""

    def __init__(self) -> None:
        self.locks: list[LockInfo] = []
        self.waiters: list[WaiterInfo] | None = []
        self.pauses: list[Pause] = []
        self.page: dict[str, Any] = {}
        self.failing: set[str] = set()
        self.error = DOWN
        self.calls: list[str] = []
        self.queries: list[LockQuery] = []

    def ask(self, *call: str) -> None:
        """Note the call, and fail if it shall."""
        self.calls.append(call[0])
        if self.failing & {*call, "all"}:
            raise self.error


@contextmanager
def shown_store(
    alias: str = "shown",
    backend: type[ShownBackend] = ShownBackend,
    *,
    events: bool = False,
    **stores: Any,
) -> Iterator[Shown]:
    """Make DISTLOCK this store, and others."""
    shown = Shown()
    entry: dict[str, Any] = {"OPTIONS": {"events": events}}
    entry["BACKEND"] = f"{backend.__module__}.{backend.__qualname__}"
    with (
        mock.patch.object(ShownBackend, "known", shown, create=True),
        override_settings(DISTLOCK={alias: entry, **stores}),
    ):
        yield shown
