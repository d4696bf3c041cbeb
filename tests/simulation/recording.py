"""What the workers of a universe do, as the history that tests/faults judges."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tests.faults.checker import Fault, Waiver
from tests.faults.history import Kind, Operation, Outcome

from .scheduler import Scheduler

if TYPE_CHECKING:
    from django_distlock.leases.owned_lease import OwnedLease
    from django_distlock.server.table import LockTable

    from .machines import Process


PATIENT: Final = 8.0
"""Seconds in which a waiter gets a free lock, whatever is wrong: it tries by itself each 5."""


@dataclass(frozen=True)
class Held:
    """A lease that a worker has."""

    process: Process
    lease: OwnedLease

    def is_relied_on(self) -> bool:
        """Return whether its process would say that it holds the lock."""
        if not self.process.is_alive:
            return False
        with self.process.as_running():
            return self.lease.held


class Recorder:
    """The history of a universe, and what was seen beside it."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.registers: dict[str, Register] = {}
        self.problems: list[str] = []
        """What is wrong, whatever the history says."""
        self.events: list[tuple[float, str]] = []
        """What happened in the universe, for people."""
        self.waivers: list[Waiver] = []
        self.table: LockTable | None = None
        """The server's table, as long as the server runs."""
        self._held: dict[str, list[Held]] = {}

    def excuse_tokens(self) -> None:
        """Excuse tokens that don't rise from now on: the server lost both, the last one and time.

        Increments by such tokens are not protected.
        """
        faults = frozenset({Fault.TOKEN_ORDER, Fault.LOST_UPDATE})
        reason = "It crashed while its wall clock was behind what it had shown before."
        self.waivers.append(Waiver(faults, Scheduler.current.now, math.inf, reason))

    def excuse_late_ends(self) -> None:
        """Excuse leases that outlast their ttl, from now on, if nobody takes the lock.

        A server that stops saves what is left of them, and the time since the machine's start. If
        that is started again, the next server doesn't know how long none ran.
        """
        reason = "Its machine lost its power."
        late = frozenset({Fault.AFTER_EXPIRY})
        self.waivers.append(Waiver(late, Scheduler.current.now, math.inf, reason))

    def excuse_waiting(self, seconds: float) -> None:
        """Excuse a process that waits too long because it stands still, or is cut off, for so long.

        Only if that is about as long as a waiter has to wait at most.
        """
        if seconds > PATIENT / 2:
            now, reason = Scheduler.current.now, "A waiter was paused or cut off."
            late = frozenset({Fault.REFUSED_FREE, Fault.NOT_SERVED})
            self.waivers.append(Waiver(late, now, now + seconds + PATIENT, reason))

    def note(self, event: str) -> None:
        """Note an event."""
        self.events.append((Scheduler.current.now, event))

    def begin(self, worker: str, kind: Kind, semaphore: str, **known: Any) -> int:
        """Record that an operation is invoked; return its number."""
        number = len(self.operations)
        operation = Operation(
            worker=worker,
            number=number,
            semaphore=semaphore,
            operation=kind,
            invoked=Scheduler.current.now,
            **known,
        )
        self.operations.append(operation)
        return number

    def end(self, number: int, outcome: Outcome, **known: Any) -> None:
        """Record that it has returned."""
        at = Scheduler.current.now
        self.operations[number] = replace(
            self.operations[number], returned=at, outcome=outcome, **known
        )

    def refused(self, number: int, holder: str) -> None:
        """Check that a single try was not refused because of what it was granted itself.

        Unless an earlier operation of the worker may have left that, as after a lost lease.
        """
        refused = self.operations[number]
        lock = self.table and self.table.locks.get(refused.semaphore)
        if not lock or lock.holder != holder or lock.acquired_at == 0 or refused.timeout:
            return
        mine = [each for each in self.operations[:number] if each.worker == refused.worker]
        if all(each.outcome in ("ok", "refused") for each in mine):
            self.problems.append(f"refused because of its own first try: {refused}")

    def granted(self, process: Process, lease: OwnedLease) -> None:
        """Check that nobody else relies on the lock at this moment."""
        others = self._held.setdefault(lease.semaphore, [])
        others[:] = [each for each in others if each.is_relied_on()]
        if others:
            names = ", ".join(each.process.name for each in others)
            self.problems.append(
                f"{Scheduler.current.now:.6f}: {process.name} was granted {lease.semaphore!r}"
                f" with token {lease.token}, which {names} relies on"
            )
        others.append(Held(process, lease))

    def register(self, semaphore: str) -> Register:
        """Return what the lock protects."""
        return self.registers.setdefault(semaphore, Register())


class Register:
    """A value in another store, which refuses a token that is older than an earlier one."""

    def __init__(self) -> None:
        self.value = 0
        self.highest_token = 0

    def _admits(self, token: int | None) -> bool:
        if token is None or token < self.highest_token:
            return False
        self.highest_token = token
        return True

    def read(self, token: int | None) -> int | None:
        """Return the value; None if the token is too old."""
        return self.value if self._admits(token) else None

    def write(self, token: int | None, value: int) -> bool:
        """Set the value; return False if the token is too old."""
        if not self._admits(token):
            return False
        self.value = value
        return True
