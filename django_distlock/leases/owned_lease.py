"""The lease as acquire_lock() makes it: its owner, and the actions of its holder."""

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from django.core.exceptions import SynchronousOnlyOperation

from django_distlock.concurrency.background import background
from django_distlock.concurrency.executors import in_thread
from django_distlock.concurrency.renewal import NO_REASON
from django_distlock.concurrency.store_calls import StoreCalls, aask, ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable, LockLost
from django_distlock.lease import Lease
from django_distlock.runtime import running_loop, running_task

from . import outcomes
from .process_exit import UnreferencedLease, unreferenced_leases
from .release import arelease, release
from .renewal import renew_once
from .state import LeaseState

ASYNC_UNSAFE = (
    "This waits for the lock's store, and can't be called in a running event loop: use its async "
    "twin (aacquire_lock(), arelease_lock(), async with …), or sync_to_async()."
)


def refuse_event_loop() -> None:
    """Raise SynchronousOnlyOperation in a running event loop, as Django's async_unsafe() does.

    That one raises and catches an error, which takes a tenth of the time of acquire and release.
    """
    if running_loop() is not None and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
        raise SynchronousOnlyOperation(ASYNC_UNSAFE)


class OwnedLease(LeaseState):
    """A lease with its owner, and the actions of its holder. Users see it as a Lease."""

    __slots__ = ()

    def check(self) -> None:
        if self.held:
            return
        expired = not self.remaining and not self.released and self.pid == os.getpid()
        # In a running event loop the signal's receivers can't be called.
        if expired and running_task() is None:
            self.mark_lost()
        raise self._lost()

    async def acheck(self) -> None:
        if not self.held:
            await in_thread(self.backend, self.check)  # receivers of the signal need a thread

    def renew(self) -> None:
        refuse_event_loop()
        ask(lock_backends[self.backend], self._renew)

    async def arenew(self) -> None:
        await aask(self.backend, self._renew)

    async def _renew(self, calls: StoreCalls) -> None:
        self.check()
        renewal = await renew_once(calls, self)
        if renewal.lost:
            self.mark_lost()
            raise self._lost()
        self.check()
        if not renewal.renewed:
            raise LockBackendUnavailable(
                f"{self} could not be renewed: {renewal.reason or NO_REASON}.", lease=self
            )

    def _lost(self) -> LockLost:
        return LockLost(f"{self} {self.describe_status()}.", self)

    def is_still_held(self) -> bool:
        """Tell whether it is held; the store is asked if a rollback may have undone the grant."""
        if self.held and self.may_be_rolled_back:
            with suppress(LockLost):
                ask(lock_backends[self.backend], self._renew)
        return self.held

    def release(self) -> bool:
        refuse_event_loop()
        return release(self)

    async def arelease(self) -> bool:
        return await arelease(self)

    def start_renewal(self) -> None:
        """Renew the lease in the background from now on, if it is `renewed`."""
        if self.renewed:
            background(self.backend).renew(self)

    def stop_renewal(self) -> None:
        """Stop renewing the lease in the background."""
        outcomes.stop_renewal(self)

    def mark_lost(self) -> None:
        """Record and announce its loss, unless another thread has claimed its end."""
        outcomes.mark_lost(self)

    def __dir__(self) -> list[str]:
        """Offer in an interactive shell what an editor offers."""
        return dir(Lease)

    def __repr__(self) -> str:
        identity = f"{self.semaphore!r} token={self.token} backend={self.backend!r}"
        return f"<Lease {identity} {self.describe_status()}>"

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return  # the interpreter ends, and has emptied modules that this needs
        if not getattr(self, "_end_unclaimed", None) or self.is_unreleased:
            return  # it has ended, its construction was interrupted, or its failure was reported
        if self.held:
            self.stop_renewal()  # the warning, which may be kept, refers to it again
            unreferenced_leases.append(UnreferencedLease.of(self))
            warnings.warn(
                f"{self} was never released. It ends in {self.remaining:.0f} seconds, or, without "
                "a ttl, when an operator releases it.",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A lease can't be pickled: it is this process's. To check late writes elsewhere, "
            "send its token."
        )
