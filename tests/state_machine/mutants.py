"""Memory stores that break the promise, each in one way. The state machine has to notice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_distlock.backends.memory import MemoryBackend, shared_table
from django_distlock.records import Grant, LeaseClaim, Renewal, RenewalOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

    from django_distlock.records import Claim, LockInfo, Place, Refusal, Released


class Mutant(MemoryBackend):
    """A memory store; its subclasses have a fault."""

    def owner_of(self, semaphore: str) -> str:
        """Return who holds the lock."""
        lock = shared_table(self.alias).table.locks.get(semaphore)
        return lock.owner if lock else ""


class ConstantToken(Mutant):
    """Each grant has the same token."""

    def acquire(self, *arguments: Any) -> Grant | Refusal:
        answer = super().acquire(*arguments)
        return answer._replace(token=1) if isinstance(answer, Grant) else answer


class TokenOfTheClock(Mutant):
    """A token is the time, though the clock may have been set back."""

    def acquire(self, *arguments: Any) -> Grant | Refusal:
        shared_table(self.alias).table.last_token = 0
        return super().acquire(*arguments)


class ReclaimByAnother(Mutant):
    """An attempt by another owner gets the holder's grant."""

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        found = self.owner_of(semaphore) or owner
        return super().acquire(semaphore, found, ttl, holder)


class ReleaseOfAnothers(Mutant):
    """A release does not look at the owner."""

    def release(self, lease: Claim, keep: float = 0) -> Released:
        owner = self.owner_of(lease.semaphore) or lease.owner
        return super().release(LeaseClaim(lease.semaphore, owner, lease.ttl), keep)


class ReleaseWithoutKeeping(Mutant):
    """A release frees the lock at once, though it is to be kept from others."""

    def release(self, lease: Claim, keep: float = 0) -> Released:
        return super().release(lease)


class RenewalOfTheExpired(Mutant):
    """An expired lease is renewed if nobody else has the lock."""

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        renewals = super().renew(leases)
        for lease in leases:
            if renewals[lease.owner].lost and self.acquire(
                lease.semaphore, lease.owner, lease.ttl, lease.holder
            ):
                renewals[lease.owner] = Renewal(RenewalOutcome.RENEWED)
        return renewals


class RenewalOfTheFirst(Mutant):
    """Of several leases one is renewed."""

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        renewed = Renewal(RenewalOutcome.RENEWED)
        return dict.fromkeys((lease.owner for lease in leases), renewed) | super().renew(leases[:1])


class ForcedReleaseOfLater(Mutant):
    """A forced release does not look at the token that the operator saw."""

    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        found = self.find(semaphore)
        return super().force_release(semaphore, found.token or 0 if found else 0, by=by)


class PurgeOfTheHeld(Mutant):
    """A purge deletes locks that are held."""

    def purge_released(
        self, older_than: timedelta, prefix: str = "", *, dry_run: bool = False
    ) -> Iterator[LockInfo]:
        for lock in [*self.held(prefix)]:
            shared_table(self.alias).table.force_release(lock.semaphore, lock.token or 0)
        return iter(())


class PauseThatEnds(Mutant):
    """An attempt ends the pauses, as if it did not look at them."""

    def acquire(self, *arguments: Any) -> Grant | Refusal:
        shared_table(self.alias).table.pauses.clear()
        return super().acquire(*arguments)


class QueueWithoutOrder(Mutant):
    """An attempt gets a free lock though others wait for it."""

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        table = shared_table(self.alias).table
        while (lock := table.locks.get(semaphore)) and lock.offered:
            if not table.release(semaphore, lock.owner):
                break
        return super().acquire(semaphore, owner, ttl, holder)


class OfferNotWithdrawn(Mutant):
    """A waiter that leaves keeps what it was offered."""

    def leave(self, place: Place, granted: bool) -> None:
        owner = getattr(place, "owner", "")
        if self.owner_of(getattr(place, "semaphore", "")) != owner:
            super().leave(place, granted)


class ListWithoutTheFirst(Mutant):
    """A list leaves out the first lock."""

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        found = super().held(prefix, limit)
        next(found, None)
        return found


MUTANTS = [*Mutant.__subclasses__()]
