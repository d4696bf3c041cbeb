"""A store that only exists in this test, workers that use it, and the histories they write.

Times are drawn by chance; each operation takes effect somewhere between its invocation and its
return, and some replies are lost. The subclasses break one promise each.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tests.faults.checker import Fault
from tests.faults.history import NEVER, Kind, Operation, Outcome

if TYPE_CHECKING:
    from random import Random

TTLS = (0.5, 0.5, 2, 2, 8, None)
TIMEOUTS = (0, 0, 1, 30, None)
POLL = 0.3
END = 120.0


@dataclass
class Row:
    """What the store knows of a lock."""

    owner: str | None = None
    expires: float = 0
    token: int = 0


class ImaginedStore:
    """Keeps all promises."""

    shows: ClassVar[set[Fault]] = set()
    """What the judge must find, and nothing else."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.row = Row()
        self.increments = 0

    def held(self, at: float) -> bool:
        """Return whether somebody holds the lock."""
        return self.row.owner is not None and at < self.row.expires

    def acquire(self, owner: str, ttl: float, at: float) -> int | None:
        """Grant the lock, unless it is held, and return the token."""
        if self.held(at):
            return None
        self.row = Row(owner, at + ttl, self.row.token + 1)
        return self.row.token

    def renew(self, owner: str, ttl: float, at: float) -> bool:
        """Return whether the lease could be renewed."""
        if not self.is_owner(owner, at):
            return False
        self.row.expires = at + ttl
        return True

    def release(self, owner: str, at: float) -> bool:
        """Return whether the lease was still this owner's."""
        if not self.is_owner(owner, at):
            return False
        self.row.owner = None
        return True

    def is_owner(self, owner: str, at: float) -> bool:
        """Return whether this owner has the lock."""
        return self.held(at) and self.row.owner == owner

    def increment(self, token: int) -> bool:
        """Add one to the register, unless a later holder did."""
        if token < self.row.token:
            return False
        self.increments += 1
        return True


class GrantsTwice(ImaginedStore):
    shows: ClassVar = {Fault.OVERLAP, Fault.LOST_EARLY}

    def held(self, at: float) -> bool:
        return super().held(at) and self.random.random() < 0.9


class ExpiresEarly(ImaginedStore):
    """As if a client's clock was ahead."""

    shows: ClassVar = {Fault.OVERLAP, Fault.LOST_EARLY}

    def held(self, at: float) -> bool:
        return super().held(at + 1.5)


class ConstantToken(ImaginedStore):
    shows: ClassVar = {Fault.TOKEN_ORDER}

    def acquire(self, owner: str, ttl: float, at: float) -> int | None:
        return None if super().acquire(owner, ttl, at) is None else 7


class ReleasesForAll(ImaginedStore):
    shows: ClassVar = {Fault.OWN_RELEASE, Fault.AFTER_EXPIRY, Fault.LOST_EARLY, Fault.OVERLAP}

    def release(self, owner: str, at: float) -> bool:
        held = self.held(at)
        self.row.owner = None
        return held


class RenewsTheExpired(ImaginedStore):
    shows: ClassVar = {Fault.AFTER_EXPIRY}

    def is_owner(self, owner: str, at: float) -> bool:
        return self.row.owner == owner


class ForgetsRenewals(ImaginedStore):
    shows: ClassVar = {Fault.OVERLAP, Fault.LOST_EARLY}

    def renew(self, owner: str, ttl: float, at: float) -> bool:
        return self.is_owner(owner, at)


class RefusesTheFree(ImaginedStore):
    shows: ClassVar = {Fault.REFUSED_FREE, Fault.NOT_SERVED}

    def held(self, at: float) -> bool:
        return super().held(at - 20) or super().held(at)

    def is_owner(self, owner: str, at: float) -> bool:
        return self.row.owner == owner and at < self.row.expires


class Forgets(ImaginedStore):
    """As a store that is restarted without its state."""

    shows: ClassVar = {Fault.LOST_EARLY, Fault.OVERLAP, Fault.TOKEN_ORDER}

    def held(self, at: float) -> bool:
        if self.random.random() < 0.02:
            self.row = Row()
        return super().held(at)


class LosesIncrements(ImaginedStore):
    shows: ClassVar = {Fault.LOST_UPDATE}

    def increment(self, token: int) -> bool:
        done = super().increment(token)
        if done and self.random.random() < 0.1:
            self.increments -= 1
        return done


BROKEN = ImaginedStore.__subclasses__()


def imagine(store: ImaginedStore, workers: int = 3) -> list[Operation]:
    """Return the history of workers that contend for one lock, until `END`."""
    history: list[Operation] = []
    turns: list[tuple[float, int, Worker]] = []
    order = itertools.count()
    for number in range(workers):
        worker = Worker(f"worker {number}", store, history)
        heapq.heappush(turns, (worker.next_effect(), next(order), worker))
    while turns:
        at, _, worker = heapq.heappop(turns)
        if (again := worker.take_effect(at)) < END:
            heapq.heappush(turns, (again, next(order), worker))
    return history


class Worker:
    """Acquires, renews, checks, increments and releases, and now and then much too late."""

    def __init__(self, name: str, store: ImaginedStore, history: list[Operation]) -> None:
        self.name = name
        self.store = store
        self.random = store.random
        self.history = history
        self.lease: Operation | None = None
        self.clock = self.random.random()
        self.numbers = itertools.count(1)
        self.pending = self.invoke()

    def invoke(self) -> Operation:
        """Decide what to do next."""
        kind: Kind = "acquire"
        if self.lease:
            kind = self.random.choice(("renew", "check", "increment", "release"))
        ttl = self.lease.ttl if self.lease else self.random.choice(TTLS)
        return Operation(
            worker=self.name,
            number=next(self.numbers),
            semaphore="imagined",
            operation=kind,
            invoked=self.clock,
            owner=self.lease.owner if self.lease else None,
            token=self.lease.token if self.lease else None,
            ttl=ttl,
            timeout=self.random.choice(TIMEOUTS),
        )

    def next_effect(self) -> float:
        """Return when the operation reaches the store."""
        return self.clock + self.random.choice((0.001, 0.01, 0.4)) * self.random.random()

    def take_effect(self, at: float) -> float:
        """Let the store act, write what the worker learns, and return when it acts again."""
        pending = self.pending
        outcome, known = self.act(pending, at)
        if outcome == "refused" and pending.operation == "acquire":
            deadline = NEVER if pending.timeout is None else pending.invoked + pending.timeout
            if at < deadline:
                return min(at + POLL, deadline)
        if outcome == "ok" and pending.operation == "acquire":
            self.lease = known
        if outcome == "lost" or pending.operation == "release":
            # Some go on as if nothing had happened.
            self.lease = None if self.random.random() < 0.8 else self.lease
        returned = at + self.random.random() * 0.05
        if pending.ttl is not None and self.random.random() < 0.05:
            outcome, known, self.lease = "unknown", pending, None
            returned = self.random.choice((returned, NEVER))
        self.history.append(replace(known, returned=returned, outcome=outcome))
        self.clock = min(returned, at + 1) + self.random.choice((0.01, 0.5, 5)) * (
            self.random.random()
        )
        self.pending = self.invoke()
        return self.next_effect()

    def act(self, pending: Operation, at: float) -> tuple[Outcome, Operation]:
        """Ask the store."""
        ttl = NEVER if pending.ttl is None else pending.ttl
        if pending.operation == "acquire":
            owner = f"{pending.worker}#{pending.number}"
            token = self.store.acquire(owner, ttl, at)
            if token is None:
                return "refused", pending
            return "ok", replace(pending, owner=owner, token=token)
        assert pending.owner is not None
        assert pending.token is not None
        if pending.operation == "increment":
            done = self.store.increment(pending.token)
            return ("ok" if done else "lost"), pending
        if pending.operation == "renew":
            held = self.store.renew(pending.owner, ttl, at)
        elif pending.operation == "check":
            held = self.store.is_owner(pending.owner, at)
        else:
            held = self.store.release(pending.owner, at)
        return ("ok" if held else "lost"), pending
