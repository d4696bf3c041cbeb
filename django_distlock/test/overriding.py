"""Keep locks in memory during a test."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.core.checks import CheckMessage
from django.test.utils import override_settings

from django_distlock.backends.memory import MemoryBackend, MemoryPlace, SharedTable
from django_distlock.concurrency.callers import current_caller
from django_distlock.concurrency.process_queue import recent_handovers
from django_distlock.conf import LockBackendHandler, lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.leases.outcomes import stop_renewal, unregister
from django_distlock.leases.process_exit import unreferenced_leases
from django_distlock.leases.state import LeaseState
from django_distlock.logs import clear_repeats
from django_distlock.records import Claim, Grant, Refusal, Released, Renewal

from .acquired_leases import acquired_leases
from .contexts import AsyncTestContextDecorator


class override_locks(AsyncTestContextDecorator):  # noqa: N801 - used like a function
    """Keep the locks of every alias of `DISTLOCK` in memory. No store is asked.

    Use it as `with`, as `async with`, or as a decorator of a function, sync or async, or of a
    `TestCase`, for each of its tests. It applies to all threads of the process. Each alias keeps
    its `ttl` and `guard_commits`.

    At the start there are no locks and no pauses. At the end, leases that were not released end,
    without a signal, a warning or a log line.

    A lease that was acquired before is renewed and released in its own store. Inside,
    `override_settings(DISTLOCK=…)` works as usual.
    """

    def __init__(self) -> None:
        super().__init__()
        self._active: list[_Override] = []

    def enable(self) -> None:
        self._active.append(_Override())

    def disable(self) -> None:
        self._active.pop().end()


class _Override:
    """One use of override_locks()."""

    def __init__(self) -> None:
        self._owners: set[str] = set()
        self._tables: list[OverridingTable] = []
        outer = LockBackendHandler(lock_backends.settings)
        self._settings = override_settings(
            DISTLOCK={
                alias: self._in_memory(backend, outer) for alias, backend in outer.settings.items()
            }
        )
        _forget_recent()
        self._settings.enable()
        # In the block, a name means a lock of the test, not one that the code holds around it.
        self._caller = current_caller()
        self._outer_registry, self._caller.registry = self._caller.registry, None

    def _in_memory(self, backend: Any, outer: LockBackendHandler) -> dict[str, Any]:
        """Return what DISTLOCK has for an alias, with its store replaced."""
        options = backend.get("OPTIONS") if isinstance(backend, Mapping) else None
        kept = options if isinstance(options, Mapping) else {}
        table = OverridingTable()
        self._tables.append(table)
        return {
            "BACKEND": f"{OverridingBackend.__module__}.{OverridingBackend.__qualname__}",
            "OPTIONS": {
                **{name: kept[name] for name in ("ttl", "guard_commits") if name in kept},
                "shared": table,
                "granted": self._owners,
                "outer": outer,
            },
        }

    def end(self) -> None:
        """Use the earlier stores again, and end all leases of this one."""
        try:
            self._end_leases()
        finally:
            self._settings.disable()
            for table in self._tables:
                table.end()
            _forget_recent()

    def _end_leases(self) -> None:
        registry, self._caller.registry = self._caller.registry, self._outer_registry
        leases = acquired_leases()
        if registry is not None:
            leases += registry.leases()
            for deferred in list(registry.deferred_releases):
                deferred.close()
        for lease in leases:
            if lease.owner in self._owners:
                _end_quietly(lease)
        for unreferenced in [
            each for each in unreferenced_leases if each.claim.owner in self._owners
        ]:
            unreferenced_leases.remove(unreferenced)


def _end_quietly(lease: LeaseState) -> None:
    stop_renewal(lease)
    if lease.claim_end():
        lease.record_release()
    unregister(lease)


def _forget_recent() -> None:
    """Forget what would affect the log or the waits of another test."""
    clear_repeats()
    recent_handovers.clear()


class OverridingTable(SharedTable):
    """The locks of one alias, in one use of override_locks()."""

    has_ended = False

    def end(self) -> None:
        """End the waits for its locks."""
        self.has_ended = True
        with self.mutex:
            waiting = [
                waiter
                for semaphore in self.table.waiters.semaphores()
                for waiter in self.table.waiting(semaphore)
            ]
        for waiter in waiting:
            waiter.wake()


class OverridingPlace(MemoryPlace):
    """A waiter's place in the queue. If it is left after the end, another store is asked to."""

    _shared: OverridingTable

    def check(self) -> None:
        """Raise LockBackendUnavailable at the end."""
        if self._shared.has_ended:
            raise LockBackendUnavailable("The test has ended in which this lock was waited for.")

    def leave(self, *args: object, **kwargs: object) -> None:
        """Do nothing: the queue is gone."""

    async def aleave(self, *args: object, **kwargs: object) -> None:
        """Do nothing."""


class OverridingBackend(MemoryBackend):
    """The memory store of override_locks(), with a table for each use.

    What concerns a lease that was acquired before goes to the store that this one replaces.
    """

    def __init__(
        self,
        alias: str,
        *,
        shared: OverridingTable,
        granted: set[str],
        outer: LockBackendHandler,
        ttl: float | None = 60,
        guard_commits: bool = True,
    ) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits)
        self._shared: OverridingTable = shared
        self._granted = granted
        self._outer = outer

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        self._granted.add(owner)
        return super().acquire(semaphore, owner, ttl, holder)

    def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> OverridingPlace:
        super().join(semaphore, owner, holder, wake)
        return OverridingPlace(self._shared, semaphore, owner)

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        own = [lease for lease in leases if lease.owner in self._granted]
        renewals = super().renew(own)
        if others := [lease for lease in leases if lease.owner not in self._granted]:
            renewals |= self._outer[self.alias].renew(others)
        return renewals

    def release(self, lease: Claim, keep: float = 0) -> Released:
        if lease.owner not in self._granted:
            return self._outer[self.alias].release(lease, keep)
        return super().release(lease, keep)

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return no warning: a test is one process."""
        return []
