"""The error of an acquisition that was refused until its timeout."""

from django_distlock.exceptions import LockNotAcquired
from django_distlock.leases.request import Request
from django_distlock.records import Refusal


def contention(request: Request, refusal: Refusal, *, held_here: bool) -> LockNotAcquired:
    """Return the error that says who holds the semaphore, as far as the store told."""
    if held_here:
        text = (
            f"This thread or task holds {request.semaphore!r} itself; reentrant=True gives it "
            "the same lease once more."
        )
    else:
        text = f"Somebody else holds {request.semaphore!r}."
    return LockNotAcquired(
        text,
        semaphore=request.semaphore,
        backend=request.backend,
        holder=refusal.holder or None,
        held_since=refusal.acquired_at,
        expires_at=refusal.expires_at,
        seen_at=refusal.seen_at,
        reason=refusal.reason,
    )
