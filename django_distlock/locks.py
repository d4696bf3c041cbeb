"""Acquire and release: the waiting, and what is done about an answer that got lost."""

import asyncio
import logging
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from django.utils.asyncio import async_unsafe

from . import clocks
from .acquisitions import Request, describe_holder, new_owner
from .backends.base import LONGEST_TTL, BaseLockBackend
from .exceptions import LockBackendUnavailable, LockError, LockLost, LockNotHeld
from .flows import Flow, current_flow
from .handler import lock_backends
from .leases import ASYNC_UNSAFE, Lease
from .put_off import PutOffRelease, State, release
from .semaphores import validate_semaphore
from .signals import lock_acquired, lock_contended
from .threads import in_thread, twin_of
from .transactions import open_transactions, refuse_endless_transactions, refuse_older_snapshots

logger = logging.getLogger("django_distlock")

FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.2


class BackendTtl(Enum):
    """The ttl of who gives none."""

    DEFAULT = "the backend's"

    def __repr__(self) -> str:
        return "<the backend's>"


@async_unsafe(ASYNC_UNSAFE)
def acquire_lock(
    semaphore: str,
    *,
    timeout: float | None = 0,
    ttl: float | BackendTtl | None = BackendTtl.DEFAULT,
    renew: bool = True,
    label: str = "",
    backend: str = "default",
    reentrant: bool = False,
    min_hold: float | None = None,
    max_hold: float | None = None,
) -> Lease | None:
    """Acquire the semaphore, or return None if somebody else holds it until the timeout.

    `timeout` is how long to wait, in seconds: 0 tries once, None waits as long as it takes.
    `ttl` is how long the lease lasts, in seconds by the store's clock, None until it is released;
    the default is the backend's. It is renewed in the background until it is released, unless
    `renew` is False, but ends `max_hold` seconds after the grant at the latest, so that a holder
    that hangs does not keep it. `label` tells people who look at held locks what it is for.

    After a release nobody else gets the semaphore until `min_hold` seconds have passed since the
    grant: what is quickly done is then not done again by who comes a little later.

    What this very thread or task holds is contended for it, too; waiting for it is a LockError.
    With `reentrant` it gets its lease once more, as it is, and the last of as many releases counts.

    LockBackendUnavailable means that the store couldn't be asked: nothing was acquired.
    """
    acquisition = Acquisition(
        semaphore, timeout, ttl, renew, label, backend, reentrant, min_hold, max_hold
    )
    lease = acquisition.begin()
    if lease is None and timeout != 0:
        lease = _wait(acquisition)
    if lease is None:
        lock_contended.send_robust(sender=Lease, semaphore=semaphore, backend=backend)
    return lease


@twin_of(acquire_lock)
async def aacquire_lock(
    semaphore: str,
    *,
    timeout: float | None = 0,  # noqa: ASYNC109 - as of its twin; who is cancelled holds nothing
    ttl: float | BackendTtl | None = BackendTtl.DEFAULT,
    renew: bool = True,
    label: str = "",
    backend: str = "default",
    reentrant: bool = False,
    min_hold: float | None = None,
    max_hold: float | None = None,
) -> Lease | None:
    """See acquire_lock()."""
    acquisition = Acquisition(
        semaphore, timeout, ttl, renew, label, backend, reentrant, min_hold, max_hold
    )
    lease = await in_thread(backend, acquisition.begin, _give_up)
    if lease is None and timeout != 0:
        lease = await _await(acquisition)
    if lease is None:
        await lock_contended.asend_robust(sender=Lease, semaphore=semaphore, backend=backend)
    return lease


@async_unsafe(ASYNC_UNSAFE)
def release_lock(semaphore: str | Lease, *, backend: str = "default") -> bool:
    """Release a lease, or by its name what this thread, task or request acquired.

    False means that it had been lost already: it expired, or an operator took it away.
    LockNotHeld means that nothing by this name was acquired here, or it was released before.
    """
    return _find(semaphore, backend).give_back()


@twin_of(release_lock)
async def arelease_lock(semaphore: str | Lease, *, backend: str = "default") -> bool:
    """See release_lock()."""
    return await _find(semaphore, backend).arelease()


def _find(semaphore: str | Lease, backend: str) -> Lease:
    """Return a lease, or by its name what was acquired here."""
    if isinstance(semaphore, Lease):
        return semaphore
    lease = current_flow().leases.get((backend, validate_semaphore(semaphore)))
    if lease is None:
        raise LockNotHeld(
            f"This thread, task or request holds no lease on {semaphore!r} in "
            f"DISTLOCK[{backend!r}]; one that was acquired elsewhere is released through its Lease."
        )
    return lease


class Acquisition:
    """One acquisition under way: what its arguments come to, and its tries."""

    __slots__ = (
        "_flow",
        "_max_hold",
        "_min_hold",
        "_reentrant",
        "_renew",
        "_request",
        "_waits",
        "backend",
        "deadline",
        "holder",
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
        self._min_hold, self._max_hold = validate_holds(min_hold, max_hold)
        if isinstance(ttl, BackendTtl):
            ttl = store.ttl
        elif ttl is not None or max_hold is None:
            ttl = store.validate_ttl(ttl)
        if max_hold is not None:
            ttl = max_hold if ttl is None else min(ttl, max_hold)
        self.backend = backend
        self.semaphore = validate_semaphore(semaphore)
        self.ttl = ttl
        self.holder = describe_holder(label)
        self.deadline = clocks.monotonic() + validate_timeout(timeout)
        self._waits = timeout != 0
        self._renew = renew
        self._reentrant = reentrant
        self._flow = current_flow()

    def begin(self) -> Lease | None:
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
        if (put_off := flow.put_off) and (taken := _take_back(store, request, put_off)):
            return taken
        if self._reentrant and (earlier := _held_here(request, flow)):
            return earlier.reenter()
        refuse_older_snapshots(open_transactions())
        lease = self._try(store)
        if lease is None and self._waits and _held_here(request, flow):
            raise LockError(
                f"This thread or task holds {self.semaphore!r} already, and would wait for "
                "itself; reentrant=True gives it the same lease once more."
            )
        return lease

    def try_again(self) -> Lease | None:
        """Try once more, in whatever thread."""
        return self._try(lock_backends[self.backend])

    def _try(self, store: BaseLockBackend) -> Lease | None:
        lease = _attempt(store, self._request, self._flow)
        if lease is not None:
            _tell_acquired(lease)
        return lease


def leave(lease: Lease, *, failed: bool) -> None:
    """Release at the end of a block. LockLost if it was lost, unless the block `failed` already.

    If the store is down then, the lease ends with its ttl: what was done under it stays done, and
    the trouble is logged. Without a ttl it would stay for ever: LockBackendUnavailable is raised.
    """
    with _leaving(lease, failed) as ending:
        if ending:
            ending.lost = not lease.give_back(failed=failed)


@twin_of(leave)
async def aleave(lease: Lease, *, failed: bool) -> None:
    """See leave()."""
    with _leaving(lease, failed) as ending:
        if ending:
            give_back = partial(lease.give_back, failed=failed)
            ending.lost = not await in_thread(lease.backend, give_back)


class _Ending:
    """What came of a release at the end of a block."""

    lost = False


@contextmanager
def _leaving(lease: Lease, failed: bool) -> Iterator[_Ending | None]:
    """Let the lease be released, if that is to be done, and see to what comes of it."""
    ending = _Ending()
    if lease.released:
        yield None
    elif current_flow().is_in_block_of(lease):
        # Whatever this block did about it, the lease is the outer one's.
        lease.drop_reentries(lease.reentries - 1)
        ending.lost = not lease.held
        yield None
    else:
        try:
            yield ending
        except LockBackendUnavailable:
            if lease.ttl is None and not failed:
                raise
            lease.let_end()  # or else it would be renewed for ever
            logger.exception("%s could not be released; it ends by itself.", lease)
            ending.lost = not lease.remaining
        except asyncio.CancelledError:
            if not lease.released:
                lease.let_end()
            raise
    if ending.lost and failed:
        logger.error("%s was lost before a block that failed ended.", lease)
    elif ending.lost:
        raise LockLost(f"{lease} was lost before its block ended.", lease)


def _take_back(
    store: BaseLockBackend, request: Request, put_off: list[PutOffRelease]
) -> Lease | None:
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
    # The same owner gets its own grant, unless it is gone.
    request = request._replace(owner=lease.owner, ttl=lease.within_max_hold(request.ttl))
    again = None if lease.lost else _attempt(store, request, current_flow())
    if again is None or again.token != lease.token:
        lease.lose()
        if again:
            _give_up_new(again, store)
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


def _tell_acquired(lease: Lease) -> None:
    try:
        lock_acquired.send_robust(sender=Lease, lease=lease)
    except BaseException:  # which a receiver may raise to end the process
        lease.give_back(failed=True)
        raise


def _give_up_new(lease: Lease, store: BaseLockBackend) -> None:
    """Release a grant that was asked for as the continuation of another, and isn't."""
    current_flow().forget(lease)
    lease.settle()
    lease.stop_renewal()
    lease.released = True
    with suppress(LockBackendUnavailable):
        release(store, lease, failed=True)


def _wait(acquisition: Acquisition) -> Lease | None:
    """Try until the deadline."""
    for pause in waits(acquisition.deadline):
        time.sleep(pause)
        if lease := acquisition.try_again():
            return lease
    return None


async def _await(acquisition: Acquisition) -> Lease | None:
    """Try until the deadline; of all tasks that wait in this loop, the first one alone does."""
    deadline = acquisition.deadline
    turn = _turn(acquisition)
    try:
        async with asyncio.timeout(None if deadline == math.inf else deadline - clocks.monotonic()):
            await turn.acquire()
    except TimeoutError:
        return None
    try:
        for pause in waits(deadline):
            await asyncio.sleep(pause)
            if lease := await in_thread(acquisition.backend, acquisition.try_again, _give_up):
                return lease
    finally:
        turn.release()
    return None


_turns: WeakKeyDictionary[
    asyncio.AbstractEventLoop, WeakValueDictionary[tuple[str, str], asyncio.Lock]
] = WeakKeyDictionary()


def _turn(acquisition: Acquisition) -> asyncio.Lock:
    """Return what the tasks that wait for the same semaphore queue for, in their order."""
    name = acquisition.backend, acquisition.semaphore
    queues = _turns.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    return queues.setdefault(name, asyncio.Lock())


def _give_up(lease: Lease | None) -> None:
    """Give back at once what a task that was cancelled is granted."""
    if lease is not None:
        lease.abandon(failed=True)


def _attempt(store: BaseLockBackend, request: Request, flow: Flow) -> Lease | None:
    """Try once; if the reply is lost, ask once more as the same owner, and find our own grant."""
    _, semaphore, owner, ttl, holder, *_ = request
    granted_unknown = True
    try:
        sent = clocks.monotonic()
        try:
            grant = store.acquire(semaphore, owner, ttl, holder)
        except LockBackendUnavailable as error:
            granted_unknown = error.reply_lost
            if not granted_unknown:
                raise
            sent = clocks.monotonic()
            grant = store.acquire(semaphore, owner, ttl, holder)
    except BaseException:
        # Whatever stopped us: what the store may have granted is of use to nobody.
        if granted_unknown:
            with suppress(Exception):
                store.release(request)
        raise
    if grant is None:
        return None
    lease = Lease(request, grant, sent, flow)
    flow.remember(lease)
    return lease


def validate_timeout(timeout: float | None) -> float:
    """Return the wait in seconds, infinite for None, or raise for what can't be waited."""
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}.")
    if math.isnan(timeout) or timeout < 0:
        raise ValueError(f"timeout is {timeout!r}, but must be 0 or more; None waits for ever.")
    return timeout


def validate_holds(min_hold: float | None, max_hold: float | None) -> tuple[float, float]:
    """Return the two in seconds, 0 and infinite for None, or raise for what they can't be."""
    if min_hold is max_hold is None:
        return 0, math.inf
    for name, seconds in (("min_hold", min_hold), ("max_hold", max_hold)):
        if seconds is None:
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"{name} is a number of seconds or None, not {seconds!r}.")
        least = 0.001 if name == "max_hold" else 0
        if not least <= seconds <= LONGEST_TTL.total_seconds():
            raise ValueError(
                f"{name} is {seconds!r}, but must be from {least} to "
                f"{LONGEST_TTL.total_seconds():.0f} seconds."
            )
    at_least, at_most = min_hold or 0, math.inf if max_hold is None else max_hold
    if at_least > at_most:
        raise ValueError(f"min_hold, {min_hold!r}, can't be more than max_hold, {max_hold!r}.")
    return at_least, at_most


def waits(deadline: float) -> Iterator[float]:
    """Yield how many seconds to pause before each next try, until the deadline has passed.

    Exponential back-off with jitter; the last try is made at the deadline. The clock is the local
    monotonic one, so that the time a try takes is part of the wait.
    """
    longest = FIRST_PAUSE
    while (left := deadline - clocks.monotonic()) > 0:
        yield min(left, random.uniform(longest / 2, longest))  # noqa: S311 - not for secrets
        longest = min(2 * longest, LONGEST_PAUSE)
