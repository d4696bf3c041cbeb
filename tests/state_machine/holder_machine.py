"""What holders and waiters do to a store, and what the promise says of the answers."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from django_distlock.backends.base import QueueingStore
from django_distlock.records import KEPT, Released
from tests.state_machine.promise import Claimed, Promise

if TYPE_CHECKING:
    import asyncio

    from tests.state_machine.moved_stores import MovedStore

# The clock is moved by steps of 500 seconds, and each lease ends in the middle of a step. So the
# time that passes meanwhile, or that a store adds to a lease, decides nothing.
TTLS = st.sampled_from([250, 250, 1250, 3250, None])
KEEPS = st.sampled_from([0, 0, 250, 1250])
SLACK = 200
"""Seconds in which a run has surely ended."""

SEMAPHORES = [
    "1234collectPayment",
    "1234collectPayment ",
    "1234COLLECTPAYMENT",
    "1234",
    "{1234}x}y",
    "é",
    "e\u0301",
    "100% _of\\ 'it' \"*[a]",
    "\U0001f512",
    "\U0010ffff\xa0",
    "x" * 255,
]
LAST = 4
"""The owner that has, or had, the lock."""
ANY = st.integers(0, 5)
"""Which of the semaphores that there are."""
WHO = st.tuples(ANY, st.sampled_from([0, 1, 2, 3, LAST, LAST]))
"""Which of the semaphores, and which of its owners."""


class HolderMachine(RuleBasedStateMachine):
    """Calls the store as policy does, from an event loop if there is a `runner`."""

    def __init__(self, moved: MovedStore, runner: asyncio.Runner | None = None) -> None:
        super().__init__()
        self.moved, self.runner = moved, runner
        self.store: Any = moved.store
        self.lists: bool = self.store.supports_listing
        self.keeps_expired: bool = getattr(self.store, "keeps_expired", False)
        self.promise = Promise()
        self.claims: dict[str, Claimed] = {}
        """The last lease of each owner."""
        self.places: dict[str, Any] = {}
        """The place in a queue of each waiter."""

    @initialize(semaphores=st.lists(st.sampled_from(SEMAPHORES), min_size=1, max_size=3))
    def begin(self, semaphores: list[str]) -> None:
        """Begin with an empty store."""
        self.moved.empty(SEMAPHORES)
        self.semaphores = semaphores

    def teardown(self) -> None:
        for place in self.places.values():
            self.store.leave(place, granted=False)

    def ask(self, action: str, *arguments: Any) -> Any:
        """Call the store, or its coroutine."""
        if self.runner is None:
            return getattr(self.store, action)(*arguments)
        call = getattr(self.store, f"a{action}")
        return self.runner.run(call(*arguments, deadline=self.store.new_deadline()))

    def any_semaphore(self, number: int) -> str:
        """Return one of the semaphores."""
        return self.semaphores[number % len(self.semaphores)]

    def claim_of(self, who: tuple[int, int]) -> Claimed:
        """Return this owner's last lease; of one that had none, an invented one."""
        semaphore = self.any_semaphore(who[0])
        owner = f"{SEMAPHORES.index(semaphore):016x}{who[1]:016x}"
        if who[1] == LAST:
            owner = self.promise.lock(semaphore).owner or owner
        return self.claims.get(owner) or Claimed(semaphore, owner, 250, None, f"holder {owner}")

    def possible(self, ttl: float | None) -> float | None:
        """Return the ttl, or another one if the store has no unlimited leases."""
        return 250 if ttl is None and not self.store.supports_unlimited_ttl else ttl

    # Holders

    @rule(who=WHO, ttl=TTLS)
    def acquire(self, who: tuple[int, int], ttl: float | None) -> None:
        """Try once: as a new owner, as one that was there before, or as a waiter in its turn."""
        semaphore, owner, *_ = self.claim_of(who)
        ttl = self.possible(ttl)
        allowed, lock = self.promise.may_acquire(semaphore, owner), self.promise.lock(semaphore)
        answer = self.ask("acquire", semaphore, owner, ttl, f"holder {owner}")
        assert bool(answer) in allowed, f"{semaphore!r}: {answer}, although {allowed} is promised"
        if answer:
            claim = Claimed(semaphore, owner, ttl, answer.token, f"holder {owner}")
            assert (answer.token is not None) == self.store.supports_fencing
            if ttl is not None and self.moved.leases_step_back:
                lasts = (answer.expires_at - answer.acquired_at).total_seconds()
                assert 0 <= lasts - ttl < SLACK
            self.promise.granted(claim)
            self.claims[owner] = claim
            if owner in self.places:
                self.leave_queue(claim, granted=True)
        elif self.store.tells_holder and self.promise.is_held(semaphore):
            assert answer.holder == lock.holder
            assert answer.reason == (KEPT if lock.released else "")
            assert (answer.expires_at is None) == (lock.ends == math.inf)
        elif self.store.tells_holder and not lock.queue:
            assert answer.reason.startswith("paused")

    @rule(whose=st.lists(WHO, min_size=1, max_size=6), ttl=TTLS)
    def renew(self, whose: list[tuple[int, int]], ttl: float | None) -> None:
        """Renew some leases at once, lost ones among them, for another time than before."""
        ttl = self.possible(ttl)
        chosen = {claim.owner: claim._replace(ttl=ttl) for claim in map(self.claim_of, whose)}
        some = [claim for owner, claim in chosen.items() if owner not in self.places]
        renewals = self.ask("renew", some)
        assert {*renewals} == {claim.owner for claim in some}
        for claim in some:
            held = self.promise.is_held(claim.semaphore, claim.owner)
            assert renewals[claim.owner].renewed == held, f"{claim.semaphore!r} {held}"
            assert renewals[claim.owner].lost != held
            if held:
                self.promise.extend(claim)

    @rule(who=WHO, keep=KEEPS, times=st.sampled_from([1, 1, 2]))
    def release(self, who: tuple[int, int], keep: float, times: int) -> None:
        """Release a lease that is held, was lost, or never was; or twice."""
        claim = self.claim_of(who)
        if claim.owner in self.places:
            return
        for _ in range(times):
            held = self.promise.is_held(claim.semaphore, claim.owner)
            released = self.ask("release", claim, keep)
            assert bool(released) == held, f"{claim.semaphore!r} was held: {held}"
            if released is Released.HANDED_OVER:
                assert self.promise.lock(claim.semaphore).queue
                assert not keep
            if held:
                self.promise.release(claim.semaphore, keep)

    @rule(number=ANY, owners=st.permutations(range(LAST)), ttl=TTLS, keep=KEEPS)
    def compete(self, number: int, owners: list[int], ttl: float | None, keep: float) -> None:
        """Try as each owner, waiters too; then one releases the lock, and its holder does."""
        for owner in owners:
            self.acquire((number, owner), ttl)
        self.release((number, owners[-1]), keep, 1)
        self.release((number, LAST), keep, 1)

    # Waiters

    @precondition(lambda self: isinstance(self.store, QueueingStore))
    @rule(who=WHO)
    def join(self, who: tuple[int, int]) -> None:
        """Join the queue as an owner that is not in it; where there is none now, waiters poll."""
        claim = self.claim_of(who)
        if claim.owner in self.places or self.promise.is_held(claim.semaphore, claim.owner):
            return
        arguments = claim.semaphore, claim.owner, claim.holder, threading.Event().set
        if (place := self.ask("join", *arguments)) is not None:
            self.places[claim.owner] = place
            self.promise.join(claim.semaphore, claim.owner, is_sure=self.store.queues_all)

    # Without a precondition: where the promise allows two answers, a repeated run may differ.
    @rule(number=ANY, last=st.booleans())
    def leave(self, number: int, last: bool) -> None:
        """Give up, first or last in the queue; what the waiter was offered goes to the next."""
        semaphore = self.any_semaphore(number)
        if queue := [*self.promise.lock(semaphore).queue]:
            owner = queue[-1 if last else 0]
            self.leave_queue(Claimed(semaphore, owner, None, None, ""), granted=False)

    @precondition(lambda self: isinstance(self.store, QueueingStore))
    @rule(number=ANY, owners=st.permutations(range(LAST)), leaving=st.integers(1, 4))
    def line_up(self, number: int, owners: list[int], leaving: int) -> None:
        """Join the queue one after the other; some leave it at once, then all try."""
        for owner in owners:
            self.join((number, owner))
        for _ in range(leaving):
            self.leave(number, last=False)
        self.compete(number, owners, 250, 0)

    def leave_queue(self, claim: Claimed, *, granted: bool) -> None:
        """Leave the queue."""
        self.ask("leave", self.places.pop(claim.owner), granted)
        self.promise.lock(claim.semaphore).queue.pop(claim.owner, None)
