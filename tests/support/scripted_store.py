"""A store whose answers a test sets."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

from django_distlock.backends.base import QueueingStore
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.fields import EPOCH
from django_distlock.records import LOST, REFUSED, Grant, Refusal, Released, Renewal, RenewalOutcome

NO_REPLY = object()


class ScriptedPlace:
    """A place in a queue, whose waiter tries again at once."""

    patience = 0.0

    def __init__(self, *, outlasts_failures: bool) -> None:
        self.outlasts_failures = outlasts_failures

    def check(self) -> None:
        """Find nothing."""


class ScriptedBackend(QueueingStore):
    """A store of one lock that answers as set by a test, and records its calls."""

    supports_fencing = True
    supports_unlimited_ttl = True

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.owner = ""
        self.ends = EPOCH
        self.tokens = count(1)
        self.refusal = REFUSED
        self.calls: list[str] = []
        self.answers: dict[str, list[Any]] = {}

    def answer(self, action: str, *answers: Any) -> None:
        """Make the next calls raise or call these.

        `NO_REPLY`, also if it is what one returns, raises after the action is done.
        """
        self.answers[action] = list(answers)

    def _scripted(self, action: str) -> bool:
        """Raise the next error; return whether the action's reply is to be lost."""
        self.calls.append(action)
        answers = self.answers.get(action)
        answer = answers.pop(0) if answers else None
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = answer()
        return answer is NO_REPLY

    def _reply(self, lost: bool) -> None:
        if lost:
            raise LockBackendUnavailable("the reply was lost", reply_lost=True)

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        lost = self._scripted("acquire")
        if self.owner not in ("", owner):
            return self.refusal
        self.owner = owner
        self._reply(lost)
        return Grant(next(self.tokens), EPOCH, EPOCH)

    def renew(self, leases: Any) -> dict[str, Any]:
        self._reply(self._scripted("renew"))
        self.ends += timedelta(seconds=1)
        renewal = Renewal(RenewalOutcome.RENEWED, self.ends)
        return {lease.owner: renewal if lease.owner == self.owner else LOST for lease in leases}

    def release(self, lease: Any, keep: float = 0) -> Released:
        lost = self._scripted("release")
        released = Released.FREED if self.owner == lease.owner else Released.NOT_HELD
        if released:
            self.owner = ""
        self._reply(lost)
        return released

    @property
    def queues_all(self) -> bool:
        return False

    def join(self, *arguments: Any) -> None:
        """Return None: there is no queue, unless a test adds one."""

    def leave(self, place: Any, granted: bool) -> None:
        """Do nothing."""
