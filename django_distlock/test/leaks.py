"""`no_lock_held_after_test`: a test fails if it leaves a lock held."""

from typing import Any, NamedTuple
from weakref import ref

from django.db import Error

from django_distlock.concurrency.store_calls import ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.leases.release import release
from django_distlock.leases.state import LeaseState
from django_distlock.records import LeaseClaim
from django_distlock.signals import lock_acquired, lock_lost, lock_released

from .source_lines import AcquisitionLines, SourceLine
from .watching import Watcher


class Acquired(NamedTuple):
    """A lock that was acquired during a test, with what it takes to release and report it."""

    lease: "ref[LeaseState]"
    backend: str
    claim: LeaseClaim
    line: SourceLine | None

    def describe(self) -> str:
        """Return a line of the report."""
        where = "an unknown place" if self.line is None else str(self.line)
        return f"{self.claim.semaphore!r} ({self.backend}): acquired at {where}"

    def release(self) -> bool:
        """Release the lock, if it is still held; tell whether it is a leak.

        It is none if its holder did release it: in a transaction that is still open, or while the
        store was down.
        """
        lease = self.lease()
        if lease is not None and not (lease.held or lease.is_unreleased):
            return False
        try:
            return self._release(lease)
        except (LockBackendUnavailable, InvalidLockBackend, Error):
            return True  # as far as it is known

    def _release(self, lease: LeaseState | None) -> bool:
        if lease is None:
            store = lock_backends[self.backend]
            return bool(ask(store, lambda calls: calls.release(self.claim)))
        was_released = lease.is_unreleased
        lease.limit_reentries(0)
        return release(lease, failed=True) and not was_released


class no_lock_held_after_test(Watcher):  # noqa: N801 - used like a function
    """Fail a block or a decorated test that leaves a lock held, and say where it was acquired.

    A lock of any thread counts, even if the code kept no reference to the lease. It is released, so
    that the next test finds it free. These don't count: locks that were held before, locks of
    `held_elsewhere()`, and locks that were released with their request or task, which gives a
    `ResourceWarning`.

    In async code, write `async with`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines = AcquisitionLines()
        self._acquired: dict[str, Acquired] = {}

    def enable(self) -> None:
        self._acquired = {}
        self._lines.start()
        lock_acquired.record(self._add)
        lock_released.record(self._remove)
        lock_lost.record(self._remove)

    def finish(self) -> str:
        self._lines.stop()
        lock_acquired.stop_recording(self._add)
        try:
            leaks = [each.describe() for each in list(self._acquired.values()) if each.release()]
        finally:
            lock_released.stop_recording(self._remove)
            lock_lost.stop_recording(self._remove)
        self._acquired = {}
        if not leaks:
            return ""
        subject = "A lock was" if len(leaks) == 1 else f"{len(leaks)} locks were"
        return "\n".join(
            [f"{subject} still held after the test:", *(f"  {each}" for each in leaks)]
        )

    def _add(self, lease: LeaseState, **_: Any) -> None:
        self._acquired[lease.owner] = Acquired(
            ref(lease), lease.backend, lease.as_claim(), self._lines.of(lease)
        )

    def _remove(self, lease: LeaseState, **_: Any) -> None:
        self._acquired.pop(lease.owner, None)
