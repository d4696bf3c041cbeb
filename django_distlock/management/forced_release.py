"""What an operator is told about a held lock before it is taken from its holder."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from django.core.management.base import CommandError

from django_distlock.arguments import printable
from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.operations import ListingStore
from django_distlock.conf import lock_backends
from django_distlock.records import LockInfo, LockState

from .base import unseen_locks
from .output.text import ago, holder_of, time_left, time_of

CONSEQUENCES: Final = (
    "The holder is not stopped. It notices the loss at its next renewal.",
    "Before that, another worker may get the lock, with a greater token.",
)
GUARDED: Final = (
    "The commit of the holder's block or decorated call is refused.",
    "Whatever else it does may be done twice.",
)
UNGUARDED: Final = ("What it does may be done twice: guard_commits is off for this store.",)
KEPT: Final = "Its holder has released it. Only min_hold keeps it from others."


def held_lock(store: BaseLockBackend, semaphore: str) -> LockInfo:
    """Return the lock if it is held, or kept; otherwise raise what says so."""
    lock = store.find(semaphore)
    if lock is not None and lock.state is LockState.HELD:
        return lock
    if lock is not None and lock.state is LockState.STALE:
        raise CommandError(
            f"Nothing was released: {printable(semaphore)} expired {ago(lock, lock.expires_at)}, "
            "so nobody holds it, and the next attempt gets it. To mark it as released, run "
            "clear_stale_locks."
        )
    others = ", ".join(repr(alias) for alias in lock_backends if alias != store.alias)
    hint = f" DISTLOCK also has {others}: give --backend." if others else ""
    raise unseen_locks(store) or CommandError(
        f"Nothing was released: {printable(semaphore)} is free in {store.alias!r}.{hint}"
    )


def in_short(lock: LockInfo) -> str:
    """Return the lock's holder in one line."""
    return (
        f"{printable(lock.semaphore)} is held by {holder_of(lock)} with token {lock.token}, "
        f"acquired {ago(lock, lock.acquired_at)}"
    )


def description(store: BaseLockBackend, lock: LockInfo) -> Iterator[str]:
    """Yield the lines that tell all about the lock, and what its release means."""
    yield f"{printable(lock.semaphore)} in {store.alias} ({type(store).__name__})"
    waiting = "not known" if lock.waiting is None else str(lock.waiting)
    lists_renewals = isinstance(store, ListingStore) and store.lists_renewals
    for name, value in (
        ("holder", holder_of(lock)),
        ("acquired", _moment(lock, lock.acquired_at, "not known")),
        ("renewed", _moment(lock, lock.renewed_at, "never" if lists_renewals else "not known")),
        ("time left", time_left(lock)),
        ("token", str(lock.token)),
        ("waiting", waiting),
    ):
        yield f"  {name + ':':<10} {value}"
    if lock.kept:
        yield KEPT
        return
    yield from CONSEQUENCES
    yield from GUARDED if store.guard_commits else UNGUARDED


def _moment(lock: LockInfo, moment: datetime | None, absent: str) -> str:
    return absent if moment is None else f"{ago(lock, moment)}, at {time_of(moment)}"
