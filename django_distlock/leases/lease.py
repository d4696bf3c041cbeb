"""The lease: what a holder has."""

import logging
import math
import os
import warnings
from collections import deque
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn
from weakref import ref

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.asyncio import async_unsafe

from django_distlock import clocks
from django_distlock.backends.base import BaseLockBackend, TransactionalStore
from django_distlock.concurrency.background import Background, background
from django_distlock.concurrency.executors import detach, in_thread
from django_distlock.concurrency.process_queue import queues
from django_distlock.concurrency.renewal import (
    CONFIRMED,
    LONGEST,
    PERIOD,
    RETRY,
    SHORTEST,
    TAKEN,
    UNTOLD,
)
from django_distlock.concurrency.store_calls import StoreCalls, aask, ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable, LockLost
from django_distlock.records import Claim, Grant, LeaseClaim, Owner, Renewal
from django_distlock.runtime import running_task
from django_distlock.signals import lock_lost, lock_released
from django_distlock.transactions import open_transactions

from .deferred_release import DeferredRelease, State, release
from .registry import LeaseRegistry, current_registry
from .request import Request

logger = logging.getLogger("django_distlock")

ASYNC_UNSAFE = (
    "This waits for the lock's store, and can't be called in a running event loop: use its async "
    "twin (aacquire_lock(), arelease_lock(), async with …), or sync_to_async()."
)


class UnreferencedLease(NamedTuple):
    """What is left of a lease that nobody referred to any more, before it was released."""

    backend: str
    claim: LeaseClaim
    deadline: float
    """When it ends, by the local monotonic clock."""


unreferenced_leases: deque[UnreferencedLease] = deque(maxlen=10_000)
"""Those of this process, which are released when it ends. They aren't renewed."""
os.register_at_fork(after_in_child=unreferenced_leases.clear)


class Lease:
    """The lock, for a time: until `ttl` seconds after it was acquired or renewed, or a release.

    It may be used, and released, from another thread or task, but not by a forked child. It is
    always true: ask `held`.
    """

    __slots__ = (
        "__weakref__",
        "_background",
        "_caller",
        "_confirmed",
        "_deadline",
        "_end_unclaimed",
        "_last",
        "_min_hold_until",
        "_period",
        "_reason",
        "_reentries",
        "_registry",
        "acquired_at",
        "backend",
        "committed",
        "doubtful",
        "due",
        "expires_at",
        "holder",
        "is_unreleased",
        "lost",
        "owner",
        "pid",
        "released",
        "semaphore",
        "token",
        "ttl",
    )

    backend: str
    """The alias of its store."""
    owner: Owner
    """The secret by which the store knows it."""
    holder: str
    """Who has it, for people."""
    token: int | None
    """The fencing token: greater than that of every earlier grant of this semaphore."""
    acquired_at: datetime
    """By the store's clock."""
    expires_at: datetime | None
    """By the store's clock; None means not before it is released."""
    pid: int
    """The process that acquired it."""

    released: bool
    """Whether it was given back by release(), or will be when the open transactions have ended."""
    lost: bool
    """Whether it is known not to be ours any more; one that has expired may yet turn out to be."""
    doubtful: bool
    """Whether a release may have been carried out, but the store didn't answer."""
    is_unreleased: bool
    """Whether its release failed or was interrupted: it is nobody's, and ends with its ttl."""
    committed: bool
    """Whether a transaction was committed under it."""
    due: float
    """When it is to be renewed in the background, by the local monotonic clock; or is over."""

    def __init__(
        self, request: Request, grant: Grant, sent: float, registry: LeaseRegistry
    ) -> None:
        self.backend = request.backend
        self.semaphore = request.semaphore
        self.owner = request.owner
        self.ttl = request.ttl
        self.holder = request.holder
        self.token, self.acquired_at, self.expires_at = grant
        self.pid = registry.pid
        self.released = self.lost = self.doubtful = False
        self.is_unreleased = self.committed = False
        self._reason = ""
        self._registry = registry.ref
        self._reentries = 0
        self._caller = None if request.caller is None else ref(request.caller)
        self._last = sent + request.max_hold
        self._min_hold_until = request.min_hold and clocks.monotonic() + request.min_hold
        ttl = math.inf if request.ttl is None else request.ttl
        self._confirmed = sent
        self._deadline = sent + ttl
        self._period = ttl * PERIOD
        self.due = self._next_due(sent + self._period)
        self._background: Background | None = (
            background(request.backend) if request.renewed else None
        )
        self._end_unclaimed = [self.pid]  # last: without it, its construction was interrupted

    def start_renewal(self) -> None:
        """Be renewed in the background from now on, unless that was ruled out."""
        if self._background:
            self._background.renew(self)

    @property
    def held(self) -> bool:
        """Whether the lease is ours as far as is known here: no round trip is made."""
        ours = self._end_unclaimed and not self.released and not self.doubtful
        return bool(ours) and self.remaining > 0 and self.pid == os.getpid()

    @property
    def remaining(self) -> float:
        """Seconds until it expires unless renewed, by the local monotonic clock.

        Never more than by the store's: they are counted from before the request was sent. Infinite
        for an unlimited ttl.
        """
        return max(0.0, self._deadline - clocks.monotonic())

    def check(self) -> None:
        """Raise LockLost unless the lease is held."""
        if self.held:
            return
        expired = not self.remaining and not self.released and self.pid == os.getpid()
        # In a running event loop the signal's receivers can't be called.
        if expired and running_task() is None:
            self.mark_lost()
        raise LockLost(f"{self} {self._state()}.", self)

    async def acheck(self) -> None:
        """See check()."""
        if not self.held:
            await in_thread(self.backend, self.check)  # for the sake of receivers

    @async_unsafe(ASYNC_UNSAFE)
    def renew(self) -> None:
        """Let the lease end `ttl` seconds from now; LockLost if it isn't ours any more.

        It never lasts longer than `max_hold`. After LockBackendUnavailable it is unknown which end
        is true; `remaining` has the earlier, as it has in a transaction that could undo this.
        """
        ask(lock_backends[self.backend], self._renew)

    async def arenew(self) -> None:
        """See renew()."""
        await aask(self.backend, self._renew)

    async def _renew(self, calls: StoreCalls) -> None:
        self.check()
        renewal = await self.renew_once(calls)
        if renewal.lost:
            self.mark_lost()
            raise LockLost(f"{self} {self._state()}.", self)
        self.check()
        if not renewal.renewed:
            raise LockBackendUnavailable(
                f"{self} could not be renewed: {renewal.reason or UNTOLD}."
            )

    async def renew_once(self, calls: StoreCalls) -> Renewal:
        """Renew, whatever is known here."""
        sent = clocks.monotonic()
        renewal = (await calls.renew([self.claim(sent)]))[self.owner]
        store = lock_backends[self.backend]
        joins = isinstance(store, TransactionalStore) and store.joins_transaction()
        if not (joins and open_transactions()):
            self.extend(renewal, sent)
        return renewal

    def is_confirmed(self) -> bool:
        """Tell whether the store said a moment ago that it is ours: that is, when it was asked."""
        return clocks.monotonic() - self._confirmed < min(CONFIRMED, self._period)

    def claim(self, now: float) -> Claim:
        """Return what to ask the store for: the ttl from now, within `max_hold`."""
        if self._last - now >= (self.ttl or 0):
            return self
        return self._as_claim()._replace(ttl=max(self._last - now, 0.001))

    def _as_claim(self) -> LeaseClaim:
        return LeaseClaim(
            self.semaphore, self.owner, self.ttl, self.token, self.holder, self.remaining
        )

    def ttl_within_max_hold(self, ttl: float | None) -> float | None:
        """Return the ttl, or what `max_hold` leaves of it."""
        left = self._last - clocks.monotonic()
        return ttl if left >= (math.inf if ttl is None else ttl) else max(left, 0.001)

    def extend(self, renewal: Renewal, sent: float) -> None:
        """Take note of what the store answered to a claim that was sent then.

        An answer that comes after the end is too late: who asked meanwhile was told so.
        """
        if not renewal.renewed or not self.remaining:
            return
        self.expires_at = renewal.expires_at
        self._confirmed = sent
        ttl = math.inf if self.ttl is None else self.ttl
        self._deadline = max(self._deadline, min(sent + ttl, self._last))
        self.due = self._next_due(sent + self._period)

    def retry(self, now: float) -> None:
        """Be due again soon: it was not renewed, or may turn out not to be."""
        self.due = self._next_due(now + min(max(self._period * RETRY, SHORTEST), LONGEST))

    def _next_due(self, at: float) -> float:
        """Return that time, but when it ends if nothing can be done about that, or it is sooner."""
        return self._deadline if self._deadline >= self._last else min(at, self._deadline)

    def is_nearly_due(self, now: float) -> bool:
        """Tell whether to renew it now if others are renewed anyway."""
        return now < self._deadline < self._last and now >= self.due - self._period / 2

    def would_disturb_transaction(self) -> bool:
        """Tell whether a renewal now could break a transaction of who acquired it.

        On SQLite one that has read can't write any more when somebody else has written. If it is
        urgent, that is no reason.
        """
        caller = None if self._caller is None else self._caller()
        urgent = self.remaining < self._period
        return caller is not None and caller.in_atomic_block and not urgent

    def verify(self) -> bool:
        """Tell whether it is ours, by the store if it may have gone with a transaction."""
        if self.held and self._caller:
            with suppress(LockLost):
                ask(lock_backends[self.backend], self._renew)
        return self.held

    def continue_from(self, earlier: "Lease") -> None:
        """Be bound by what was said when the semaphore was acquired first."""
        self._last = min(self._last, earlier._last)
        self._min_hold_until = max(self._min_hold_until, earlier._min_hold_until)
        self._deadline = min(self._deadline, self._last)
        self.due = self._next_due(self.due)

    def reenter(self) -> "Lease":
        """Let one more release be needed."""
        self._reentries += 1
        return self

    @property
    def reentries(self) -> int:
        """How often it was reentered, and not given back since."""
        return self._reentries

    def limit_reentries(self, to: int) -> None:
        """Take all but so many as given back."""
        self._reentries = max(0, min(self._reentries, to))

    @async_unsafe(ASYNC_UNSAFE)
    def release(self) -> bool:
        """Give the lock back; False if it was not ours any more, lost or released before.

        Inside a transaction that is done when the outermost atomic block has ended, however it
        ends. With `min_hold`, others get it when that has passed. After LockBackendUnavailable it
        is renewed no more, so that it ends with its ttl; until then it can be released again.
        """
        return self.release_as()

    async def arelease(self) -> bool:
        """See release()."""
        return await self.arelease_as()

    def cleanup_release(self) -> None:
        """Release, though nobody is there to be told of a failure.

        In a running event loop that isn't waited for.
        """
        self._forget()
        if running_task():
            detach(aask(self.backend, self.release_quietly))
        else:
            ask(lock_backends[self.backend], self.release_quietly)

    async def release_quietly(self, calls: StoreCalls, *, failed: bool = False) -> None:
        """Release, or at least let it end by itself. What hinders that is logged."""
        try:
            await self.release_steps(calls, failed=failed)
        except Exception:
            logger.exception("%s, which was left behind, could not be released.", self)

    def release_as(self, *, failed: bool = False) -> bool:
        """See release_steps()."""
        reentries = self._reentries
        try:
            return ask(lock_backends[self.backend], partial(self.release_steps, failed=failed))
        except BaseException:
            self.end_interrupted_release(reentries)
            raise

    async def arelease_as(self, *, failed: bool = False) -> bool:
        """See release_steps(). A cancelled task ends when the lease has been released."""
        reentries = self._reentries
        try:
            return await aask(self.backend, partial(self.release_steps, failed=failed))
        except BaseException:
            self.end_interrupted_release(reentries)
            raise

    async def release_steps(self, calls: StoreCalls, *, failed: bool = False) -> bool:
        """Release, at once if what was done under it `failed`: then `min_hold` doesn't count."""
        if self._reentries:
            self._reentries -= 1
            return self.held
        if self.released or self.lost or self.pid != os.getpid():
            self._forget()
            return False
        store = lock_backends[self.backend]
        if transactions := open_transactions():
            return await self._release_in(calls, transactions, store, failed)
        return await self._release_now(calls, failed)

    async def _release_now(
        self, calls: StoreCalls, failed: bool, *, tentative: bool = False
    ) -> bool:
        # In this order: what is interrupted in between is not renewed, and not released twice.
        self.stop_renewal()
        if not self.claim_end():  # another thread releases it, or tells that it was lost
            self._forget()
            return False
        try:
            released = await release(calls, self, failed)
        except BaseException as error:
            self.doubtful |= not isinstance(error, LockBackendUnavailable) or error.reply_lost
            self._end_unclaimed.append(self.pid)
            self.mark_unreleased()
            raise
        self._forget()  # first: a receiver may acquire it again
        if not released:
            self.send_lost()
        elif tentative:
            self.released = True
        else:
            self.send_released()
        return released

    async def _release_in(
        self,
        calls: StoreCalls,
        transactions: list[BaseDatabaseWrapper],
        store: BaseLockBackend,
        failed: bool,
    ) -> bool:
        """Release when the transactions have ended.

        Or at once and in the only one, if nobody can have the lock before that ends. If the lease
        is lost, none of them may be committed.
        """
        [first, *others] = transactions
        joins = isinstance(store, TransactionalStore) and store.joins_transaction()
        deferred = DeferredRelease(self, current_registry(), transactions, failed)
        if not self.held:
            deferred.state = State.GUARDING
            self.mark_lost()
        elif others or first.needs_rollback or not joins:
            self.released = True
        else:
            released = await self._release_now(calls, failed, tentative=True)
            deferred.state = State.TENTATIVE if released else State.GUARDING
        self._forget()
        return self.released

    def min_hold_left(self) -> float:
        """Return for how many seconds nobody may get the semaphore after a release now."""
        return max(0.0, self._min_hold_until - clocks.monotonic()) if self._min_hold_until else 0.0

    def claim_end(self) -> bool:
        """Take the last word on what becomes of it; False if somebody has that already."""
        try:
            self._end_unclaimed.pop()
        except IndexError:
            return False
        return True

    def stop_renewal(self) -> None:
        """Be renewed no more in the background."""
        if self._background:
            self._background.stop_renewal(self)

    def mark_unreleased(self) -> None:
        """Be nobody's, after a release that failed or was interrupted.

        It is renewed no more. It ends with its ttl, or is released by another try: also by the next
        acquisition of its semaphore in the thread or task that acquired it.
        """
        self.stop_renewal()
        self._background = None
        if not (self.released or self.lost):
            self.is_unreleased = True
            if registry := self._registry():
                registry.add_unreleased(self)

    def end_interrupted_release(self, reentries: int) -> None:
        """Undo what an interrupted release left half done; it had been reentered so often before.

        A release of a reentered lease counts. What waits for the end of transactions still does.
        """
        if reentries:
            self.limit_reentries(reentries - 1)
        elif not self.released:
            self.mark_unreleased()

    def mark_lost(self) -> None:
        """Take note that it isn't ours any more, unless somebody else has the last word."""
        if self.claim_end():
            self.send_lost()

    def send_released(self) -> None:
        """Tell that the store has been given the lock back."""
        self.released = True
        queues.wake_first(self.backend, self.semaphore)
        lock_released.send_robust(sender=Lease, lease=self)

    def send_lost(self) -> None:
        """Tell that it isn't ours any more."""
        self._reason = TAKEN if self.remaining else self._expiry()
        self.lost, self.released = True, False
        self.stop_renewal()
        queues.wake_first(self.backend, self.semaphore)
        logger.warning("%s, of %s, was lost: %s.", self, self.holder, self._reason)
        lock_lost.send_robust(sender=Lease, lease=self, reason=self._reason)

    def _forget(self) -> None:
        if registry := self._registry():
            registry.remove(self)

    def _state(self) -> str:
        if self.pid != os.getpid():
            return f"is process {self.pid}'s, which has forked this one"
        if self.released:
            return "was released"
        if self.lost:
            return f"was lost: {self._reason}"
        if self.doubtful:
            return "may have been released: the store did not answer"
        if not self._end_unclaimed:
            return "is being released, or lost"
        return "is held" if self.held else f"expired: {self._expiry()}"

    def _expiry(self) -> str:
        ended = "max_hold" if self._deadline >= self._last else f"ttl of {self.ttl} seconds"
        return f"its {ended} has passed"

    def __bool__(self) -> Literal[True]:
        return True

    def __str__(self) -> str:
        return f"The lease on {self.semaphore!r}"

    def __repr__(self) -> str:
        what = f"{self.semaphore!r} token={self.token} backend={self.backend!r}"
        return f"<Lease {what} {self._state()}>"

    def __del__(self) -> None:
        if not hasattr(self, "_end_unclaimed") or self.is_unreleased:
            return  # never finished, or told of already
        if self.held:
            self.stop_renewal()  # who keeps the warning has a reference again
            unreferenced_leases.append(
                UnreferencedLease(self.backend, self._as_claim(), self._deadline)
            )
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


if TYPE_CHECKING:

    def _lease_is_a_claim(lease: Lease) -> Claim:
        return lease
