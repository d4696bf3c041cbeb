"""One acquisition: what its arguments come to, its tries, and what of an answer that got lost."""

import math
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from . import clocks
from .acquisitions import Request, describe_holder, new_owner
from .asking import Questions
from .backends.base import Grant, Place
from .borders import running_loop
from .exceptions import LockBackendUnavailable, LockError, LockLost
from .flows import Flow, current_flow
from .handler import lock_backends
from .leases import Lease
from .plain import plain
from .put_off import PutOffRelease, State, release
from .queues import contended, queues
from .semaphores import validate_semaphore
from .signals import lock_acquired
from .transactions import open_transactions, refuse_endless_transactions, refuse_older_snapshots


class BackendTtl(Enum):
    """The ttl of who gives none."""

    DEFAULT = "the backend's"

    def __repr__(self) -> str:
        return "<the backend's>"


class Acquisition:
    """One acquisition under way: what its arguments come to, and its tries."""

    __slots__ = (
        "_flow",
        "_loop",
        "_max_hold",
        "_min_hold",
        "_reentrant",
        "_renew",
        "_request",
        "_waits",
        "backend",
        "deadline",
        "holder",
        "is_queued_by_store",
        "semaphore",
        "ttl",
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
        self._waits = timeout != 0
        self._loop = running_loop()
        self.is_queued_by_store = self._waits and store.queues_all
        self._renew = renew
        self._reentrant = reentrant
        self._flow = current_flow()

    def begin(self) -> Questions[Lease | None]:
        """Try for the first time, where the caller's transactions are."""
        flow = self._flow
        store = lock_backends[self.backend]
        refuse_endless_transactions()
        self._request = request = Request(
            backend=self.backend,
            semaphore=self.semaphore,
            owner=new_owner(),
            ttl=self.ttl,
            holder=self.holder,
            renewed=self._renew and self.ttl is not None and store.can_renew(),
            caller=store.caller(),
            min_hold=self._min_hold,
            max_hold=self._max_hold,
        )
        if (put_off := flow.put_off) and (taken := (yield from _take_back(request, put_off))):
            return taken
        if self._reentrant and (earlier := _held_here(request, flow)):
            return earlier.reenter()
        refuse_older_snapshots(open_transactions())
        lease = None if self._has_predecessors() else (yield from self.try_once())
        if lease is None and self._waits and _held_here(request, flow):
            raise LockError(
                f"This thread or task holds {self.semaphore!r} already, and would wait for "
                "itself; reentrant=True gives it the same lease once more."
            )
        return lease

    def _has_predecessors(self) -> bool:
        """Tell whether to wait in a queue, rather than to try to overtake it."""
        if self.is_queued_by_store:
            return contended.has(self.backend, self.semaphore)
        return self._waits and queues.has(self.backend, self.semaphore, self._loop)

    def is_over(self) -> bool:
        """Tell whether the deadline has passed."""
        return clocks.monotonic() >= self.deadline

    def join(self, wake: Callable[[], object]) -> Questions[Place | None]:
        """Wait where the store has a queue; in whatever thread."""
        _, semaphore, owner, _, holder, *_ = self._request
        place: Place | None = yield "join", (semaphore, owner, holder, wake)
        return place

    def try_once(self) -> Questions[Lease | None]:
        """Try, in whatever thread."""
        lease = yield from _attempt(self._request, self._flow)
        if lease is not None:
            yield from _tell_acquired(lease)
        return lease


def _attempt(request: Request, flow: Flow) -> Questions[Lease | None]:
    """Try once; if the reply is lost, ask once more as the same owner, and find our own grant."""
    _, semaphore, owner, ttl, holder, *_ = request
    granted_unknown = True
    question = "acquire", (semaphore, owner, ttl, holder)
    try:
        sent = clocks.monotonic()
        try:
            grant: Grant | None = yield question
        except LockBackendUnavailable as error:
            granted_unknown = error.reply_lost
            if not granted_unknown:
                raise
            sent = clocks.monotonic()
            grant = yield question
    except BaseException:
        # Whatever stopped us: what the store may have granted is of use to nobody.
        if granted_unknown:
            with suppress(Exception):
                yield "release", (request,)
        raise
    if grant is None:
        return None
    if ttl is not None and clocks.monotonic() - sent >= ttl:
        with suppress(Exception):
            yield "release", (request,)
        raise LockBackendUnavailable(
            f"DISTLOCK[{request.backend!r}] granted {semaphore!r} too late: after its ttl, "
            f"{ttl:g} seconds."
        )
    lease = Lease(request, grant, sent, flow)
    flow.remember(lease)
    return lease


def _take_back(request: Request, put_off: list[PutOffRelease]) -> Questions[Lease | None]:
    """Acquire once more what an earlier block of the same transaction had; None if there is none.

    LockLost if somebody else may have had the lock in between: no such transaction is committed.
    """
    key = request.backend, request.semaphore
    matching = [each for each in put_off if (each.lease.backend, each.lease.semaphore) == key]
    for each in matching:
        if each.over:
            each.finish()  # what noticed that, a finalizer, couldn't
    guarding = [each for each in matching if each.guards]
    if not guarding:
        return None
    first, *others = guarding
    lease = first.lease
    if not (lease.released or lease.lost):
        return None  # it is this thread's again, as any that it holds
    # The same owner gets its own grant, unless it is gone: another token tells, where there is one.
    request = request._replace(owner=lease.owner, ttl=lease.within_max_hold(request.ttl))
    gone = lease.lost or (lease.token is None and not (yield "renew", ([request],)))
    again = None if gone else (yield from _attempt(request, current_flow()))
    if again is None or again.token != lease.token:
        lease.lose()
        if again:
            yield from _give_up_new(again)
        raise LockLost(f"{lease} was lost since an earlier block of this transaction.", lease)
    again.continue_from(lease)
    first.lease, first.state = again, State.GUARDING
    for each in others:
        each.drop()
    return again


def _held_here(request: Request, flow: Flow) -> Lease | None:
    """Return the lease that this thread holds by that name, None if there is none."""
    lease = flow.leases.get((request.backend, request.semaphore))
    return lease if lease and lease.verify() else None


def _tell_acquired(lease: Lease) -> Questions[None]:
    try:
        lock_acquired.send_robust(sender=Lease, lease=lease)
    except BaseException:  # which a receiver may raise to end the process
        yield from lease.giving_back(failed=True)
        raise


def _give_up_new(lease: Lease) -> Questions[None]:
    """Release a grant that was asked for as the continuation of another, and isn't."""
    current_flow().forget(lease)
    lease.settle()
    lease.stop_renewal()
    lease.released = True
    with suppress(LockBackendUnavailable):
        yield from release(lease, failed=True)


def validate_timeout(timeout: float | None) -> float:
    """Return the wait in seconds, infinite for None, or raise for what can't be waited."""
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}.")
    if math.isnan(timeout) or timeout < 0:
        raise ValueError(f"timeout is {timeout!r}, but must be 0 or more; None waits for ever.")
    return plain(timeout)


def validate_holds(
    min_hold: float | None, max_hold: float | None, longest: float
) -> tuple[float, float]:
    """Return the two in seconds, 0 and infinite for None, or raise for what they can't be."""
    if min_hold is max_hold is None:
        return 0, math.inf
    for name, seconds in (("min_hold", min_hold), ("max_hold", max_hold)):
        if seconds is None:
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"{name} is a number of seconds or None, not {seconds!r}.")
        least = 0.001 if name == "max_hold" else 0
        if not least <= seconds <= longest:
            raise ValueError(
                f"{name} is {seconds!r}, but must be from {least} to {longest:.0f} seconds."
            )
    at_least, at_most = plain(min_hold) or 0, math.inf if max_hold is None else plain(max_hold)
    if at_least > at_most:
        raise ValueError(f"min_hold, {min_hold!r}, can't be more than max_hold, {max_hold!r}.")
    return at_least, at_most
