"""One acquisition: its validated arguments, its tries, and the undoing of what they acquired."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from django_distlock import clocks
from django_distlock.arguments import validate_bool, validate_holds, validate_timeout
from django_distlock.backends.base import QueueingStore, TransactionalStore
from django_distlock.concurrency.process_queue import queues, recent_handovers
from django_distlock.concurrency.store_calls import StoreCalls
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable, LockError, LockLost
from django_distlock.leases.commit_guard import guard_connections
from django_distlock.leases.immediate_release import release_unannounced
from django_distlock.leases.outcomes import mark_lost, stop_renewal
from django_distlock.leases.owned_lease import OwnedLease
from django_distlock.leases.process_exit import release_at_exit
from django_distlock.leases.registry import current_registry
from django_distlock.leases.release import release_quietly
from django_distlock.leases.request import describe_holder, new_owner
from django_distlock.locks.arguments import BackendTtl
from django_distlock.records import LOST, Place
from django_distlock.runtime import running_loop
from django_distlock.semaphores.validation import validate_semaphore
from django_distlock.transactions import (
    open_transactions,
    refuse_endless_transactions,
    refuse_older_snapshots,
)

from .attempts import Attempts
from .labels import running_label

before_acquisitions: Final[list[Callable[["Acquisition"], object]]] = []
"""Called before the first attempt of each acquisition, in the stack of the code that acquires.

Recorders of its signals find what is set in a context variable here, in whatever thread they run.
Like them, these neither wait nor raise.
"""


class Acquisition(Attempts):
    """A request, with the policy for its attempts.

    If anything interrupts them, the code that runs them calls undo(): what was granted, and perhaps
    not returned yet, is then released, or at least renewed no longer.
    """

    __slots__ = (
        "_loop",
        "_reentered",
        "_reentrant",
        "deadline",
        "has_left",
        "is_queued_by_store",
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
        template: str = "",
        function: str = "",
    ) -> None:
        """Validate the arguments: TypeError or ValueError.

        `function` is the name of the decorated one.
        """
        store = lock_backends[backend]
        validate_bool("renew", renew)
        validate_bool("reentrant", reentrant)
        shortest_hold, longest_hold = validate_holds(min_hold, max_hold, store.longest_ttl)
        if isinstance(ttl, BackendTtl):
            ttl = store.ttl
        elif ttl is not None or max_hold is None:
            ttl = store.validate_ttl(ttl)
        if max_hold is not None:
            ttl = max_hold if ttl is None else min(ttl, max_hold)
        registry = current_registry()
        super().__init__(
            backend=store.alias,
            semaphore=validate_semaphore(semaphore),
            owner=new_owner(),
            began=clocks.monotonic(),
            ttl=ttl,
            holder=describe_holder(running_label(registry, function) if label == "" else label),
            min_hold=shortest_hold,
            max_hold=longest_hold,
            renewed=renew and ttl is not None,
            template=template,
            connection=None,
            _registry=registry,
        )
        self.deadline = self.began + validate_timeout(timeout)
        self.waits = timeout != 0
        self.is_queued_by_store = (
            self.waits and isinstance(store, QueueingStore) and store.queues_all
        )
        self.has_left = False
        self._loop = running_loop()
        self._reentrant = reentrant
        self._reentered: tuple[OwnedLease, int] | None = None
        for prepare in before_acquisitions:
            prepare(self)

    def pass_time(self, seconds: float) -> None:
        """Count this many seconds as waited already."""
        self.began -= seconds
        self.deadline -= seconds

    def is_over(self) -> bool:
        """Tell whether the deadline has passed."""
        return clocks.monotonic() >= self.deadline

    async def begin(self, calls: StoreCalls) -> OwnedLease | None:
        """Try for the first time, in the thread of the caller's transactions."""
        try:
            self._prepare()
            if unreleased := self._registry.find_unreleased(self.backend, self.semaphore):
                await release_quietly(calls, unreleased)
            if self._registry.deferred_releases and (taken := await self._take_back(calls)):
                return taken
            if self._reentrant and (earlier := self._held_here()):
                self._reentered = earlier, earlier.reentries
                earlier.reentries += 1
                return earlier
            refuse_older_snapshots(open_transactions())
            lease = None if self._has_predecessors() else await self.attempt(calls)
            if lease is not None:
                self._register(lease)
            elif self.waits and self._held_here():
                raise LockError(
                    f"This thread or task holds {self.semaphore!r} already, and would wait for "
                    "itself; reentrant=True gives it the same lease once more."
                )
        except GeneratorExit:
            raise  # its event loop is closed: no store can be asked
        except BaseException:
            await self.undo(calls)
            raise
        return lease

    def _prepare(self) -> None:
        """Refuse endless transactions, install the commit guard, find the caller's connection."""
        refuse_endless_transactions()
        store = lock_backends[self.backend]
        if store.guard_commits:
            guard_connections()
        if isinstance(store, TransactionalStore):
            self.connection = store.caller()
            self.renewed = self.renewed and store.can_renew()

    def _has_predecessors(self) -> bool:
        """Tell whether to wait in a queue, rather than to try to overtake it."""
        if self.waits and recent_handovers.pop(self.backend, self.semaphore):
            return True
        if self.is_queued_by_store:
            return False
        return self.waits and queues.has(self.backend, self.semaphore, self._loop)

    def _held_here(self) -> OwnedLease | None:
        """Return the lease that this thread or task holds by this name."""
        lease = self._registry.find(self.backend, self.semaphore)
        return lease if isinstance(lease, OwnedLease) and lease.is_still_held() else None

    async def join(self, calls: StoreCalls, wake: Callable[[], object]) -> Place | None:
        """Wait in the store's queue, if it has one; in any thread."""
        return await calls.join(self.semaphore, self.owner, self.holder, wake)

    async def try_once(self, calls: StoreCalls, place: Place | None = None) -> OwnedLease | None:
        """Try, in any thread. After an error or interruption the attempt is undone.

        If the store can't be asked and that ends the wait, the place in its queue is left as well,
        so that both have the time of one call. While the wait goes on, nothing is undone: the
        release might arrive late, and end what a later attempt was granted to the same owner.
        """
        try:
            lease = await self.attempt(calls)
            if lease is not None:
                self._register(lease)
        except GeneratorExit:
            raise  # its event loop is closed: no store can be asked
        except BaseException as error:
            is_down = isinstance(error, LockBackendUnavailable)
            if is_down and place is not None and place.outlasts_failures and not self.is_over():
                raise
            await self.undo(calls)
            if is_down and place is not None:
                self.has_left = True
                with suppress(LockBackendUnavailable):  # the store removes waiters that are gone
                    await calls.leave(place, False)
            raise
        return lease

    async def _take_back(self, calls: StoreCalls) -> OwnedLease | None:
        """Acquire again what an earlier block of the same transaction released; else return None.

        LockLost if another owner may have had the lock in between: such a transaction must not be
        committed.
        """
        guarding = self._registry.guarding_releases(self.backend, self.semaphore)
        if not guarding:
            return None
        first, *others = guarding
        lease = first.lease
        if not (lease.released or lease.lost):
            return None  # it was taken back, and is held like any other
        # The same owner gets its own grant again, unless that is gone: then the token is another
        # one, in a store that has tokens.
        self.owner, self.ttl = lease.owner, lease.ttl_within_max_hold(self.ttl)
        is_gone = lease.lost
        if lease.token is None and not is_gone:
            is_gone = (await calls.renew([self])).get(self.owner, LOST).lost
        again = None if is_gone else await self.attempt(calls)
        # From here on, the deferred release is enough to release it.
        self._may_be_granted, self._granted = False, None
        if again is None or again.token != lease.token:
            mark_lost(lease)
            if again is not None:
                await release_unannounced(calls, again)
            raise LockLost(f"{lease} was lost since an earlier block of this transaction.", lease)
        again.continue_from(lease)
        first.guard(again)
        self._granted = again
        self._registry.add(again)
        again.start_renewal()
        for each in others:
            each.close()
        # Otherwise the earlier lease, if anything refers to it, would be marked as lost one day.
        stop_renewal(lease)
        lease.claim_end()
        return again

    def retain(self, lease: OwnedLease) -> None:
        """Let the thread or task refer to the lease: its caller may not."""
        self._registry.retain(lease)
        release_at_exit()

    @property
    def must_undo(self) -> bool:
        """Whether there may be something to undo."""
        return bool(self._granted or self._may_be_granted or self._reentered)

    async def undo(self, calls: StoreCalls) -> None:
        """Release what this acquired, or may have; what can't be released ends with its ttl."""
        reentered, self._reentered = self._reentered, None
        if reentered is not None:
            lease, reentries = reentered
            lease.limit_reentries(reentries)
        may_be_granted, self._may_be_granted = self._may_be_granted, False
        granted = self.mark_unreleased()
        if granted is not None:
            await release_quietly(calls, granted, failed=True)
        elif may_be_granted:
            with suppress(Exception):
                await calls.release(self)
