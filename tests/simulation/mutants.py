"""The real code with one mistake each, which the universes must show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django_distlock.backends.server import backend, messages
from django_distlock.locks import api
from django_distlock.locks.acquisition import Acquisition
from django_distlock.records import Released
from django_distlock.server import restart, running
from django_distlock.server.saved_state import StateFile
from django_distlock.server.table import LockTable
from tests.faults.mutants.retry_as_new_owner import MistakenCalls

from .disk import Disk
from .threads import running_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django_distlock.concurrency.store_calls import StoreCalls
    from django_distlock.leases.owned_lease import OwnedLease
    from django_distlock.server.locks import Lock, LockSnapshot, Session
    from django_distlock.server.pauses import PauseSnapshot

    from .installation import Replacement


class ConstantToken(LockTable):
    """All grants have one token."""

    def _grant(self, lock: Lock, owner: str, holder: str) -> None:
        super()._grant(lock, owner, holder)
        lock.token = 1_800_000_000_000_000


class UncheckedRelease(LockTable):
    """Anybody can release the lock of anybody."""

    def release(
        self, semaphore: str, owner: str, keep: float = 0, attempt: float = math.inf
    ) -> Released:
        lock = self.locks.get(semaphore)
        if lock is None or lock.offered:
            return Released.NOT_HELD
        return super().release(semaphore, lock.owner, keep, attempt)


class OfferThatStays(LockTable):
    """What a waiter was offered that has left stays its own until the offer ends."""

    def leave(self, semaphore: str, owner: str) -> None:
        if (lock := self.locks.get(semaphore)) is not None:
            self.waiters.remove(lock, owner)


class NothingReclaimed(LockTable):
    """After a crash of the server, no holder gets its lease back."""

    def reclaim(self, lease: LockSnapshot, session: Session | None = None) -> bool:
        return False


class AnotherOwner(Acquisition):
    """Tries again as another owner when a reply was lost, so it doesn't find its own grant."""

    __slots__ = ()

    async def attempt(self, calls: StoreCalls) -> OwnedLease | None:
        return await super().attempt(MistakenCalls(calls, self))  # type: ignore[arg-type]


def ttl_by_clients_clock(ttl: float) -> float:
    """Return for how long a lease lasts whose end is a time by the client's wall clock."""
    return max(0.001, ttl + min(0.0, running_process().machine.wall_error))


_acquire_request, _renew_request = messages.acquire_request, messages.renew_request


def acquire_request_by_clients_clock(
    semaphore: str, owner: str, ttl: float, holder: str, attempt: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """See backends/server/messages.py."""
    return _acquire_request(semaphore, owner, ttl_by_clients_clock(ttl), holder, attempt)


def renew_request_by_clients_clock(leases: list[Any]) -> dict[str, Any]:
    """See backends/server/messages.py."""
    request = _renew_request(leases)
    for lease in request["leases"]:
        lease[2] = ttl_by_clients_clock(lease[2])
    return request


_write_locks, _write_running = StateFile.write_locks, StateFile.write_running


def write_locks_without_token(self: StateFile, max_ttl: float, last_token: int, *rest: Any) -> None:
    """See StateFile."""
    _write_locks(self, max_ttl, 0, *rest)


def write_running_without_token(
    self: StateFile, max_ttl: float, last_token: int, pauses: list[PauseSnapshot]
) -> None:
    """See StateFile."""
    _write_running(self, max_ttl, 0, pauses)


_grace_after = restart.grace_after


def short_grace(saved: Any, longest: float, write_line: Any, path: Any) -> float:
    """See server/restart.py."""
    return _grace_after(saved, longest, write_line, path) / 4


class StoppedClock:
    """Takes the place of the module time in server/restart.py."""

    @staticmethod
    def time_ns() -> int:
        """Return the beginning of time."""
        return 0


@dataclass(frozen=True)
class Mutant:
    """A mistake: another table, or other functions."""

    table: type[LockTable] = LockTable
    replacements: Sequence[Replacement] = ()
    first: int = 0
    """The seed from which on to look for a universe that shows it: one is near."""


MUTANTS: Final = {
    "constant token": Mutant(ConstantToken),
    "release without the owner check": Mutant(UncheckedRelease, first=100),
    "expiry by the client's skewed clock": Mutant(
        replacements=[
            (backend, "acquire_request", acquire_request_by_clients_clock),
            (backend, "renew_request", renew_request_by_clients_clock),
        ]
    ),
    "acquire retried with a new owner": Mutant(
        replacements=[(api, "Acquisition", AnotherOwner)],
        first=75,
    ),
    "offer not withdrawn": Mutant(OfferThatStays, first=65),
    "reclaim dropped": Mutant(NothingReclaimed, first=45),
    "grace shorter than the longest ttl": Mutant(
        replacements=[(running, "grace_after", short_grace)]
    ),
    "token not persisted": Mutant(
        replacements=[
            (StateFile, "write_locks", write_locks_without_token),
            (StateFile, "write_running", write_running_without_token),
        ]
    ),
    "token of a crashed server forgotten": Mutant(
        replacements=[(restart, "time", StoppedClock)],
        first=440,
    ),
    "state not written through": Mutant(
        replacements=[(Disk, "write_through", lambda self, number: None)],
    ),
}
NOT_MUTATED: Final = Mutant()
