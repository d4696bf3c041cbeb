"""A table of locks with stopped clocks, and invariants of tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from django_distlock.server.expiry import SLACK
from django_distlock.server.locks import EXPIRED, Lock, LockSnapshot, Session
from django_distlock.server.table import LockTable

if TYPE_CHECKING:
    from django_distlock.records import Released

LATER = 1_700_000_000_000_000


class World:
    """A table whose clocks a test moves, and the waiters that it woke."""

    def __init__(self, *, grace: float = 0, **options: Any) -> None:
        self.now = 1000.0
        self.wall = LATER
        self.woken: list[str] = []
        self.away: set[str] = set()
        self.table = LockTable(
            grants_from=self.now + grace if grace else EXPIRED,
            monotonic=lambda: self.now,
            microseconds=lambda: self.wall,
            **options,
        )

    def let_pass(self, seconds: float, *, unseen: bool = False) -> None:
        """Advance the clocks, and run due work, unless `unseen`."""
        self.now += seconds
        self.wall += round(seconds * 1_000_000)
        if not unseen:
            self.table.run_due()

    def acquire(
        self,
        owner: str,
        semaphore: str = "1234collectPayment",
        ttl: float = 60,
        session: Session | None = None,
    ) -> int:
        """Return the token; 0 if another owner holds the lock."""
        lock = self.table.acquire(semaphore, owner, ttl, f"{owner}'s host", session)
        return lock.token if lock else 0

    def join(
        self, *owners: str, semaphore: str = "1234collectPayment", session: Session | None = None
    ) -> float:
        """Add these waiters, one after the other."""
        left = 0.0
        for owner in owners:
            left = self.table.join(semaphore, owner, "host", partial(self.wake, owner), session)
        return left

    def wake(self, owner: str) -> bool:
        """Record a wake-up; return False if the waiter is gone."""
        self.woken.append(owner)
        return owner not in self.away

    def release(
        self, owner: str, semaphore: str = "1234collectPayment", keep: float = 0
    ) -> Released:
        """Release the lock."""
        return self.table.release(semaphore, owner, keep)

    def lock(self, semaphore: str = "1234collectPayment") -> Lock:
        """Return the lock, which must be in the table."""
        return self.table.locks[semaphore]

    def queue(self, semaphore: str = "1234collectPayment") -> list[str]:
        """Return the owners in the queue, in order."""
        return list(self.lock(semaphore).queue or ())

    def offered(self, semaphore: str = "1234collectPayment") -> str:
        """Return the owner that it is offered to, if any."""
        lock = self.table.locks.get(semaphore)
        return lock.owner if lock and lock.offered and lock.expires > self.now else ""


@dataclass
class LockModel:
    """A simple model of a lock, to compare the table with."""

    owner: str = ""
    ends: float = EXPIRED
    token: int = 0
    offered: bool = False
    session: str = ""
    queue: dict[str, str] = field(default_factory=dict)
    """Waiters in order, with their sessions."""


def claim(
    owner: str,
    token: int,
    semaphore: str = "1234collectPayment",
    remaining: float = 30,
    acquired_at: int = 7,
) -> LockSnapshot:
    """Return a holder's claim to its lease."""
    return LockSnapshot(semaphore, owner, token, f"{owner}'s host", acquired_at, remaining)


def assert_sound(table: LockTable) -> None:
    """Fail if related entries of the table disagree."""
    now = table.monotonic()
    for semaphore, lock in table.locks.items():
        assert lock.semaphore == semaphore
        assert lock.expires > EXPIRED or (lock.queue and (table.grace or table.pauses)), (
            "neither taken nor waited for"
        )
        waiters = dict(lock.queue or {})
        assert not lock.offered or lock.owner in waiters
        for owner, waiter in waiters.items():
            assert waiter.owner == owner
            assert (semaphore, owner) in waiter.session.waiting
        if lock.session is not None:
            assert lock.session.bound[semaphore] is lock
        if EXPIRED < lock.expires < math.inf:
            assert lock.next_check <= lock.expires
            assert (lock.next_check, semaphore) in table.schedule.entries
    for due, semaphore in table.schedule.entries:
        assert due > EXPIRED
        assert semaphore
    assert len(table.schedule.entries) <= 2 * len(table.locks) + SLACK
    assert now == table.monotonic()


def let_release(world: World) -> None:
    """Release the lock of its holder."""
    world.release("one")
