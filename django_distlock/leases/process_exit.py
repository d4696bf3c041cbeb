"""What a process leaves behind when it ends is released then: the lock would stay until its ttl."""

import atexit
import logging
import warnings
from functools import cache
from typing import Final

from django_distlock import clocks
from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.sockets.pools import Budget
from django_distlock.concurrency.store_calls import ask
from django_distlock.conf import lock_backends

from .lease import Lease, UnreferencedLease, unreferenced_leases
from .registry import current_registry

logger = logging.getLogger("django_distlock")

LONGEST: Final = 3.0
"""Seconds after which no other store is asked: a process must end, whatever is down."""


@cache
def release_at_exit() -> None:
    """Have this process release what it leaves behind.

    Before the connections for locks are closed, which was registered earlier than this: when the
    store was made by which something is acquired.
    """
    atexit.register(_release_all)


def _release_all() -> None:
    """Release what this thread, the main one, acquired by name, and what nobody refers to.

    What another thread acquired that still runs is left alone: it may be at work.
    """
    left: list[Lease | UnreferencedLease] = [
        lease for lease in current_registry().retained() if lease.held
    ]
    while unreferenced_leases:
        left.append(unreferenced_leases.popleft())
    told = _release_each([each for each in left if not _is_over(each)])
    for text in told:
        logger.warning(text)
    for text in told:
        warnings.warn(text, ResourceWarning, stacklevel=2)


def _release_each(left: list[Lease | UnreferencedLease]) -> list[str]:
    """Release these; return what is to be told of each. A store that is down is asked once."""
    deadline = clocks.monotonic() + LONGEST
    down: dict[str, str] = {}
    told = []
    for each in left:
        backend = each.backend
        if clocks.monotonic() >= deadline:
            down.setdefault(backend, "that took too long")
        if backend not in down:
            try:
                _hurry(lock_backends[backend], deadline)
                _release(each)
            except Exception as error:  # noqa: BLE001 - it is told of
                down[backend] = str(error)
        told.append(_describe(each, down.get(backend)))
    return told


def _hurry(store: BaseLockBackend, deadline: float) -> None:
    """Let the store's calls end by then, whatever its `store_timeout` is."""
    budget = store.time_budget()
    if isinstance(budget, Budget):
        budget.seconds = min(budget.seconds, deadline - clocks.monotonic())


def _is_over(each: Lease | UnreferencedLease) -> bool:
    return isinstance(each, UnreferencedLease) and each.deadline <= clocks.monotonic()


def _release(each: Lease | UnreferencedLease) -> None:
    if isinstance(each, Lease):
        each.limit_reentries(0)
        each.release_as()
    else:
        ask(lock_backends[each.backend], lambda calls: calls.release(each.claim))


def _describe(each: Lease | UnreferencedLease, failure: str | None) -> str:
    semaphore = each.semaphore if isinstance(each, Lease) else each.claim.semaphore
    left = f"The lease on {semaphore!r} was left behind by a process"
    if failure is None:
        return f"{left}, and ended with it: release it there, or use a `with` block."
    return f"{left}, and could not be released: {failure}"
