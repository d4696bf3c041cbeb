"""Make a holder lose its lock: by force, or by the end of its ttl."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from django_distlock import clocks
from django_distlock.concurrency.executors import in_thread
from django_distlock.concurrency.store_calls import StoreCalls, aask
from django_distlock.conf import lock_backends
from django_distlock.lease import Lease
from django_distlock.leases.outcomes import mark_lost, stop_renewal
from django_distlock.records import LOST
from django_distlock.signals import lock_lost

from .holdings import Holding, find_holding
from .rollbacks import repeat_after_rollback
from .store_calls import ask_store

PATIENCE: Final = 10.0
"""Seconds after which expire() gives up: something else renews the lease, or locks its row."""


def lose(lease: Lease | str, *, backend: str = "default", noticed: bool = True) -> None:
    """Take a lock from its holder, as an operator does with a forced release.

    `lease` is a lease, or the semaphore of a lock that any thread or task of this process holds in
    the store `backend`, or `held_elsewhere()` does. If none does, that is an `AssertionError`.
    Afterwards the lock is free, and a commit under the lease is refused.

    The holder has noticed the loss: `held` is False, `check()` raises `LockLost`, and `lock_lost`
    has been sent. With `noticed=False`, only the store knows. The holder finds out when it renews,
    commits or releases.

    In async code, write `await alose(…)`, unless the locks are in memory.
    """
    holding = find_holding(lease, backend)
    ask_store(holding.backend, partial(_take_away, holding=holding))
    if noticed and holding.lease:
        mark_lost(holding.lease)


async def alose(lease: Lease | str, *, backend: str = "default", noticed: bool = True) -> None:
    """See `lose()`."""
    holding = find_holding(lease, backend)
    await aask(holding.backend, partial(_take_away, holding=holding))
    if noticed:
        await _anotice(holding)


def expire(lease: Lease | str, *, backend: str = "default", noticed: bool = True) -> None:
    """Make a lease expire, as if its ttl had passed. The lock is free, but was never released.

    The store lists it as stale, if it lists such locks. The holder has noticed. With
    `noticed=False`, `held` is False, but `lock_lost` is sent only when the holder checks, commits
    or releases. For the rest, see `lose()`.

    It takes some milliseconds; on Memcached, which counts in seconds, three seconds.
    """
    holding = find_holding(lease, backend)
    ask_store(holding.backend, partial(_begin_to_expire, holding=holding))
    _await_expiry(holding)
    _run_out(holding)
    if noticed and holding.lease:
        mark_lost(holding.lease)


async def aexpire(lease: Lease | str, *, backend: str = "default", noticed: bool = True) -> None:
    """See `expire()`."""
    holding = find_holding(lease, backend)
    await aask(holding.backend, partial(_begin_to_expire, holding=holding))
    pauses, expired = _pauses(holding), False
    while not expired:
        await asyncio.sleep(next(pauses))
        expired = await aask(holding.backend, partial(_has_expired, holding=holding))
    _run_out(holding)
    if noticed:
        await _anotice(holding)


async def _anotice(holding: Holding) -> None:
    if holding.lease and lock_lost.receivers:  # they need a thread
        await in_thread(holding.backend, partial(mark_lost, holding.lease))
    elif holding.lease:
        mark_lost(holding.lease)


async def _take_away(calls: StoreCalls, holding: Holding) -> None:
    """Release the lock as its owner would: every store can do that."""
    if not await calls.release(holding.claim):
        raise _gone(holding)
    if holding.lease:
        holding.lease.forget_confirmation()
    release = partial(_release, holding=holding)
    repeat_after_rollback(holding.backend, partial(ask_store, holding.backend, release))


async def _release(calls: StoreCalls, holding: Holding) -> None:
    await calls.release(holding.claim)


async def _begin_to_expire(calls: StoreCalls, holding: Holding) -> None:
    if holding.claim.ttl is None:
        raise AssertionError(f"{holding} has no ttl, so it can't expire. It can be lost: lose(…).")
    if holding.lease:
        stop_renewal(holding.lease)
    if await _has_expired(calls, holding):
        raise _gone(holding)


async def _has_expired(calls: StoreCalls, holding: Holding) -> bool:
    """Tell whether the lease has expired. If not, renew it for the shortest time."""
    claim = holding.claim._replace(ttl=lock_backends[holding.backend].shortest_ttl)
    return (await calls.renew([claim])).get(claim.owner, LOST).lost


def _await_expiry(holding: Holding) -> None:
    pauses, expired = _pauses(holding), False
    while not expired:
        time.sleep(next(pauses))
        expired = ask_store(holding.backend, partial(_has_expired, holding=holding))


def _pauses(holding: Holding) -> Iterator[float]:
    """Yield how long to wait before asking whether it has expired, each time a little longer.

    Twice the ttl at least: a store may count in steps of it, and keep a lease a step longer.
    """
    step = lock_backends[holding.backend].shortest_ttl
    pause = 3 * step
    give_up = clocks.monotonic() + PATIENCE
    while clocks.monotonic() < give_up:
        yield pause
        pause += step
    raise AssertionError(f"{holding} did not expire in {PATIENCE:g} seconds.")


def _run_out(holding: Holding) -> None:
    if holding.lease:
        holding.lease.expire()
    repeat_after_rollback(holding.backend, partial(_expire_again, holding))


def _expire_again(holding: Holding) -> None:
    if not ask_store(holding.backend, partial(_has_expired, holding=holding)):
        _await_expiry(holding)


def _gone(holding: Holding) -> AssertionError:
    return AssertionError(f"{holding} is no longer held in its store.")
