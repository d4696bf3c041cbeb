"""Repeat a run of the model on a real store, step by step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .spin import Step

TTL: Final = 2
"""The model's, in ticks."""
SEMAPHORES: Final = ("1234collectPayment", "5678collectPayment")
CLIENTS: Final = (1, 2, 3)


class Difference(NamedTuple):
    """The first step whose outcome is another one on the real store."""

    step: Step
    outcome: str


@dataclass
class Client:
    """What a client knows."""

    number: int
    owner: str = field(default_factory=new_owner, repr=False)
    lock: int = 0
    token: int | None = None
    """Of its lease; None if it has none, or doesn't know it."""
    ends: int = 0
    """When its lease ends by its own clock, in ticks."""

    def forget(self) -> None:
        """End the acquisition: the next one has another owner."""
        self.owner, self.token, self.ends = new_owner(), None, 0


class Replay(ABC):
    """Repeats steps on a store: each by the method of this name.

    The clients' clocks are moved by ticks.
    """

    tick_seconds: float
    """How long a tick is: the store's offers last one."""

    def __init__(self) -> None:
        self.clients = {number: Client(number) for number in CLIENTS}
        self.now = 0
        """In ticks, by the clients' clocks."""
        self.tokens: dict[int, list[int]] = {0: [], 1: []}
        """What was granted for each lock, in order."""

    def follow(self, steps: Iterable[Step]) -> Difference | None:
        """Repeat the steps until the real outcome of one differs."""
        for step in steps:
            outcome = self._perform(step)
            if outcome != step.outcome:
                return Difference(step, outcome)
        return None

    def holders(self, lock: int) -> list[int]:
        """Return the clients that have an unexpired lease on the lock, as far as they know."""
        return [
            client.number
            for client in self.clients.values()
            if client.lock == lock and client.token is not None and client.ends > self.now
        ]

    def claim(self, client: Client) -> LeaseClaim:
        """Return what a client tells of its lease."""
        remaining = max(0, client.ends - self.now) * self.tick_seconds
        ttl = TTL * self.tick_seconds
        name = SEMAPHORES[client.lock]
        return LeaseClaim(name, client.owner, ttl, client.token, "a client", remaining)

    def _perform(self, step: Step) -> str:
        if not step.client:
            return self._happen(step)
        client = self.clients[step.client]
        client.lock = step.lock
        outcome = getattr(self, step.action)(client)
        match step.action, outcome:
            case (("acquire" | "take"), int(token)):
                return self._receive(step, client, token)
            case "renew", "held":
                if step.remaining:
                    client.ends = self.now + step.remaining
            case (("leave" | "die" | "release"), _):
                client.forget()
                if step.outcome == "unknown":
                    return step.outcome
            case (_, "lost"):
                client.forget()
        return str(outcome)

    def _receive(self, step: Step, client: Client, token: int) -> str:
        """Give the client its grant, unless the model says that the reply gets lost."""
        granted = self.tokens[step.lock]
        if token not in granted[-1:]:  # else it was repeated, or offered
            granted.append(token)
        if step.outcome == "unknown":
            return step.outcome
        client.token, client.ends = token, self.now + step.remaining
        return "granted"

    def _happen(self, step: Step) -> str:
        if step.action == "tick":
            self.now += 1
        names = [SEMAPHORES[step.lock]] if step.action in OF_LOCKS else []
        getattr(self, step.action)(*names)
        return "done"

    @abstractmethod
    def acquire(self, client: Client) -> int | str:
        """Try to acquire the lock; return the token, or "refused"."""

    def take(self, client: Client) -> int | str:
        """Take the offered lock."""
        return self.acquire(client)

    @abstractmethod
    def renew(self, client: Client) -> str:
        """Renew the lease; return "held" or "lost"."""

    @abstractmethod
    def release(self, client: Client) -> str:
        """Release the lease; return "released" or "lost"."""

    def die(self, client: Client) -> str:
        """Let the store learn nothing of the client's end."""
        return "done"

    @abstractmethod
    def tick(self) -> None:
        """Let the store's clock move by a tick."""


OF_LOCKS: Final = ("force_release", "purge")
"""The actions that are about a lock, though no client makes them."""
