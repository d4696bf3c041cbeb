"""`assert_locked`, and what a failed assertion says of a lock."""

from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error

from django_distlock.arguments import printable
from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.operations import ListingStore
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.leases.registry import current_registry
from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim, LockInfo, LockState
from django_distlock.semaphores.validation import validate_semaphore


def assert_locked(semaphore: str, backend: str = "default") -> None:
    """Raise `AssertionError` unless the running thread, task or request holds this lock.

    Call it in code that must run under the lock, such as a mock's `side_effect`. The lease must be
    neither lost nor expired. A store that lists its locks is asked, too, if it can be asked here.
    The error names the locks that are held instead, and the holder of this one.
    """
    if problem := why_not_locked(semaphore, backend):
        raise AssertionError(problem)


def why_not_locked(semaphore: str, backend: str) -> str:
    """Return why the running code does not hold this lock; an empty text if it does."""
    store = lock_backends[backend]
    lease = current_registry().find(store.alias, validate_semaphore(semaphore))
    listed = _listed(store, semaphore)
    if lease is None:
        name = _name(semaphore, backend)
        return f"This thread or task does not hold {name}. {_held()} {_describe(listed)}"
    if not lease.held:
        return f"{lease} {lease.describe_status()}. {_describe(listed)}"
    if isinstance(listed, str) or (listed is not None and listed.token == lease.token):
        return ""
    return f"{lease} was taken away in its store. {_describe(listed)}"


def holder_in_store(semaphore: str, backend: str) -> str | None:
    """Return the lock's holder, for people; None if the lock is free.

    A store that can't list its locks, as Memcached, is asked for the lock instead, which is
    released at once if it was free.
    """
    store = lock_backends[backend]
    validate_semaphore(semaphore)
    if isinstance(store, ListingStore):
        found = _find(store, semaphore)
        return None if found is None else found.holder
    owner = new_owner()
    with store.time_budget():
        answer = store.acquire(semaphore, owner, store.ttl, "a test that asks for its holder")
        if not answer:
            return answer.holder or f"a holder that {type(store).__name__} doesn't name"
        store.release(LeaseClaim(semaphore, owner, store.ttl))
    return None


def _listed(store: BaseLockBackend, semaphore: str) -> LockInfo | str | None:
    """Return the lock if somebody holds it, as its store lists it; a text says why it can't."""
    if not isinstance(store, ListingStore):
        return f"{type(store).__name__} can't list its locks"
    try:
        return _find(store, semaphore)
    except (LockBackendUnavailable, SynchronousOnlyOperation, Error) as error:
        return str(error)


def _find(store: ListingStore, semaphore: str) -> LockInfo | None:
    with store.time_budget():
        found = store.find(semaphore)
    return found if found and found.state is LockState.HELD and not found.kept else None


def _describe(listed: LockInfo | str | None) -> str:
    if isinstance(listed, str):
        return f"Its holder isn't known: {listed.rstrip('.')}."
    return "Nobody holds it." if listed is None else f"Its holder is {printable(listed.holder)}."


def _held() -> str:
    names = [
        _name(lease.semaphore, lease.backend) for lease in current_registry().leases() if lease.held
    ]
    return f"It holds {', '.join(names) or 'no lock'}."


def _name(semaphore: str, backend: str) -> str:
    return repr(semaphore) if backend == "default" else f"{semaphore!r} ({backend})"
