"""One acquisition: what its arguments come to, its tries, and what of an answer that got lost."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from django_distlock import clocks
from django_distlock.arguments import validate_bool, validate_holds, validate_timeout
from django_distlock.backends.base import QueueingStore, TransactionalStore
from django_distlock.concurrency.process_queue import queues, recent_handovers
from django_distlock.concurrency.store_calls import StoreCalls, aask, ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable, LockError, LockLost, LockNotAcquired
from django_distlock.leases.commit_guard import guard_connections
from django_distlock.leases.deferred_release import State, release
from django_distlock.leases.lease import Lease
from django_distlock.leases.process_exit import release_at_exit
from django_distlock.leases.registry import LeaseRegistry, current_registry
from django_distlock.leases.request import Request, describe_holder, new_owner
from django_distlock.locks.arguments import BackendTtl
from django_distlock.records import Place
from django_distlock.runtime import running_loop
from django_distlock.semaphores.validation import validate_semaphore
from django_distlock.signals import lock_acquired
from django_distlock.transactions import (
    open_transactions,
    refuse_endless_transactions,
    refuse_older_snapshots,
)


class Acquisition:
    """One acquisition under way: what its arguments come to, its tries, and what they came to.

    Whoever runs it undoes it when anything interrupts that: what was granted, and perhaps not
    returned yet, is then released, or at least no longer renewed.
    """

    __slots__ = (
        "_granted",
        "_loop",
        "_max_hold",
        "_may_be_granted",
        "_min_hold",
        "_reentered",
        "_reentrant",
        "_registry",
        "_renew",
        "_request",
        "_tried",
        "backend",
        "deadline",
        "has_left",
        "holder",
        "is_queued_by_store",
        "semaphore",
        "ttl",
        "waits",
    )

    def __init__(
        self,
        semaphore: str,
        timeout: float | None,
        ttl: float | BackendTtl | None,
        renew: bool,
        label: str,
        backend: str,
        reentrant: bool,
        min_hold: float | None,
        max_hold: float | None,
    ) -> None:
        """Raise for arguments that make no sense."""
        store = lock_backends[backend]
        validate_bool("renew", renew)
        validate_bool("reentrant", reentrant)
        self._min_hold, self._max_hold = validate_holds(min_hold, max_hold, store.longest_ttl)
        if isinstance(ttl, BackendTtl):
            ttl = store.ttl
        elif ttl is not None or max_hold is None:
            ttl = store.validate_ttl(ttl)
        if max_hold is not None:
            ttl = max_hold if ttl is None else min(ttl, max_hold)
        self.backend = store.alias
        self.semaphore = validate_semaphore(semaphore)
        self.ttl = ttl
        self.holder = describe_holder(label)
        self.deadline = clocks.monotonic() + validate_timeout(timeout)
        self.waits = timeout != 0
        self._loop = running_loop()
        self.is_queued_by_store = (
            self.waits and isinstance(store, QueueingStore) and store.queues_all
        )
        self._renew = renew
        self._reentrant = reentrant
        self._registry = current_registry()
        self._tried = self._may_be_granted = self.has_left = False
        self._granted: Lease | None = None
        self._reentered: tuple[Lease, int] | None = None

    @property
    def must_try(self) -> bool:
        """Whether the store has not been asked yet: each acquisition asks it once at least."""
        return not self._tried

    async def begin(self, calls: StoreCalls) -> Lease | None:
        """Try for the first time, where the caller's transactions are."""
        registry = self._registry
        store = lock_backends[self.backend]
        refuse_endless_transactions()
        if store.guard_commits:
            guard_connections()
        can_renew, caller = True, None
        if isinstance(store, TransactionalStore):
            can_renew, caller = store.can_renew(), store.caller()
        self._request = request = Request(
            backend=self.backend,
            semaphore=self.semaphore,
            owner=new_owner(),
            ttl=self.ttl,
            holder=self.holder,
            renewed=self._renew and self.ttl is not None and can_renew,
            caller=caller,
            min_hold=self._min_hold,
            max_hold=self._max_hold,
        )
        if left := registry.find_unreleased(self.backend, self.semaphore):
            await left.release_quietly(calls)
        if registry.deferred_releases and (taken := await self._take_back_or_undo(calls)):
            return taken
        if self._reentrant and (earlier := _held_here(request, registry)):
            self._reentered = earlier, earlier.reentries
            return earlier.reenter()
        refuse_older_snapshots(open_transactions())
        lease = None if self._has_predecessors() else await self.try_once(calls)
        if lease is None and self.waits and _held_here(request, registry):
            raise LockError(
                f"This thread or task holds {self.semaphore!r} already, and would wait for "
                "itself; reentrant=True gives it the same lease once more."
            )
        return lease

    def contention(self) -> LockNotAcquired:
        """Return the error that says who holds the semaphore, as far as is known here."""
        own = self._registry.find(self.backend, self.semaphore)
        if own is not None and own.held:
            return LockNotAcquired(
                f"This thread or task holds {self.semaphore!r} itself; reentrant=True gives it "
                "the same lease once more."
            )
        return LockNotAcquired(f"Somebody else holds {self.semaphore!r}.")

    def _has_predecessors(self) -> bool:
        """Tell whether to wait in a queue, rather than to try to overtake it."""
        if self.is_queued_by_store:
            return recent_handovers.pop(self.backend, self.semaphore)
        return self.waits and queues.has(self.backend, self.semaphore, self._loop)

    def is_over(self) -> bool:
        """Tell whether the deadline has passed."""
        return clocks.monotonic() >= self.deadline

    async def join(self, calls: StoreCalls, wake: Callable[[], object]) -> Place | None:
        """Wait where the store has a queue; in whatever thread."""
        _, semaphore, owner, _, holder, *_ = self._request
        return await calls.join(semaphore, owner, holder, wake)

    async def try_once(self, calls: StoreCalls) -> Lease | None:
        """Try, in whatever thread. What fails or is interrupted is undone."""
        self._tried = True
        try:
            lease = await self._attempt(calls, self._request)
            if lease is not None:
                self._registry.add(lease)
                lease.start_renewal()
                # A receiver may raise what ends the process.
                lock_acquired.send_robust(sender=Lease, lease=lease)
        except GeneratorExit:
            raise  # its event loop is closed: nobody asks any more
        except BaseException:
            await self.undo(calls)
            raise
        return lease

    async def try_or_leave(self, calls: StoreCalls, place: Place | None) -> Lease | None:
        """Try; if the store can't be asked and that ends the wait, leave the queue in one with it.

        So both have the time of one call.
        """
        try:
            return await self.try_once(calls)
        except LockBackendUnavailable:
            if place is not None and (not place.outlasts_failures or self.is_over()):
                self.has_left = True
                with suppress(LockBackendUnavailable):  # it forgets who is gone
                    await calls.leave(place, False)
            raise

    async def _attempt(self, calls: StoreCalls, request: Request) -> Lease | None:
        """Try once; if the reply is lost, once more as the same owner, to find our own grant."""
        _, semaphore, owner, ttl, holder, *_ = request
        self._may_be_granted = True
        sent = clocks.monotonic()
        try:
            grant = await calls.acquire(semaphore, owner, ttl, holder)
        except LockBackendUnavailable as error:
            if not error.reply_lost:
                self._may_be_granted = False
                raise
            sent = clocks.monotonic()
            grant = await calls.acquire(semaphore, owner, ttl, holder)
        if grant is None:
            self._may_be_granted = False
            return None
        if ttl is not None and clocks.monotonic() - sent >= ttl:
            raise LockBackendUnavailable(
                f"DISTLOCK[{request.backend!r}] granted {semaphore!r} too late: after its ttl, "
                f"{ttl:g} seconds."
            )
        self._granted = Lease(request, grant, sent, self._registry)
        return self._granted

    async def _take_back_or_undo(self, calls: StoreCalls) -> Lease | None:
        try:
            return await self._take_back(calls)
        except Exception:  # what interrupts it is undone by who runs this
            await self.undo(calls)
            raise

    async def _take_back(self, calls: StoreCalls) -> Lease | None:
        """Acquire once more what an earlier block of the same transaction had, or return None.

        LockLost if somebody else may have had the lock in between: no such transaction is
        committed.
        """
        request = self._request
        key = request.backend, request.semaphore
        deferred_releases = self._registry.deferred_releases
        matching = [
            each for each in deferred_releases if (each.lease.backend, each.lease.semaphore) == key
        ]
        for each in matching:
            if each.ended:
                each.complete()  # what noticed that, a finalizer, couldn't
        guarding = [each for each in matching if each.guards]
        if not guarding:
            return None
        first, *others = guarding
        lease = first.lease
        if not (lease.released or lease.lost):
            return None  # it is this thread's again, as any that it holds
        # The same owner gets its own grant, unless it is gone: another token tells, where there is
        # one.
        request = request._replace(owner=lease.owner, ttl=lease.ttl_within_max_hold(request.ttl))
        gone = lease.lost
        if lease.token is None and not gone:
            gone = (await calls.renew([request]))[request.owner].lost
        self._request = request
        again = None if gone else await self._attempt(calls, request)
        # From here on the release that waits for the transactions to end is enough.
        self._may_be_granted, self._granted = False, None
        if again is None or again.token != lease.token:
            lease.mark_lost()
            if again:
                await _release_new(again, calls)
            raise LockLost(f"{lease} was lost since an earlier block of this transaction.", lease)
        again.continue_from(lease)
        first.lease, first.state = again, State.GUARDING
        self._granted = again
        self._registry.add(again)
        again.start_renewal()
        for each in others:
            each.close()
        # Or else the earlier lease, if somebody refers to it, would be told to be lost one day.
        lease.stop_renewal()
        lease.claim_end()
        return again

    @property
    def must_undo(self) -> bool:
        """Whether there may be something to undo."""
        return bool(self._granted or self._may_be_granted or self._reentered)

    def retain(self, lease: Lease) -> None:
        """Let the thread or task refer to the lease: its caller may not."""
        self._registry.retain(lease)
        release_at_exit()

    def mark_unreleased(self) -> Lease | None:
        """Have what this acquired renewed no more, and return it."""
        granted, self._granted = self._granted, None
        if granted is not None:
            granted.mark_unreleased()
        return granted

    async def undo(self, calls: StoreCalls) -> None:
        """Release what this acquired, or may have; what can't be released ends with its ttl."""
        reentered, self._reentered = self._reentered, None
        if reentered is not None:
            lease, reentries = reentered
            lease.limit_reentries(reentries)
        may_be_granted, self._may_be_granted = self._may_be_granted, False
        granted = self.mark_unreleased()
        if granted is not None:
            await granted.release_quietly(calls, failed=True)
        elif may_be_granted:
            with suppress(Exception):
                await calls.release(self._request)


def undo(acquisition: Acquisition) -> None:
    """Undo it, in sync code, as far as that is not done. The error that is on its way counts."""
    if acquisition.must_undo:
        ask(lock_backends[acquisition.backend], acquisition.undo)


async def aundo(acquisition: Acquisition, error: BaseException) -> None:
    """See undo(). What a cancelled task asked for is undone by aask().

    Where the event loop is closed, nobody can be asked: the lease ends with its ttl.
    """
    if acquisition.must_undo:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            acquisition.mark_unreleased()
        else:
            await aask(acquisition.backend, acquisition.undo)


def _held_here(request: Request, registry: LeaseRegistry) -> Lease | None:
    """Return the lease that this thread holds by that name, None if there is none."""
    lease = registry.find(request.backend, request.semaphore)
    return lease if lease and lease.verify() else None


async def _release_new(lease: Lease, calls: StoreCalls) -> None:
    """Release a grant that was asked for as the continuation of another, and isn't."""
    lease.claim_end()
    lease.released = True
    with suppress(LockBackendUnavailable):
        await release(calls, lease, failed=True)
