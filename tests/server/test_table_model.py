"""The table of locks behaves like a simple model, whatever is done in whatever order."""

from __future__ import annotations

import math

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from django_distlock.records import Released
from django_distlock.server.locks import EXPIRED, Session
from django_distlock.server.transitions import OFFER_SECONDS
from tests.support.lock_tables import LockModel, World, assert_sound

OWNERS = st.sampled_from(["one", "two", "three", "four", "five"])
SEMAPHORES = st.sampled_from(["1234collectPayment", "5678collectPayment"])
SESSIONS = st.sampled_from(["left", "right", "elsewhere"])
PREFIXES = st.sampled_from(["", "1234", "5678collectPayment", "9"])
TTLS = st.sampled_from([0.5, OFFER_SECONDS, 1.5, 3.0, 60.0, math.inf])


class Anything(RuleBasedStateMachine):
    """Runs random actions, and compares the table with the model."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.table = self.world.table
        self.models = {
            semaphore: LockModel() for semaphore in ("1234collectPayment", "5678collectPayment")
        }
        self.sessions = {name: Session() for name in ("left", "right", "elsewhere")}
        self.unresponsive: set[str] = set()
        self.away: set[str] = set()
        self.last_token = 0
        self.pauses: dict[str, float] = {}
        """When each pause ends, by its prefix."""

    def paused_until(self, semaphore: str) -> float:
        """Return when the pauses of this lock end; EXPIRED if it isn't paused."""
        ends = [end for prefix, end in self.pauses.items() if semaphore.startswith(prefix)]
        return max((end for end in ends if end > self.world.now), default=EXPIRED)

    def is_held(self, semaphore: str, owner: str) -> bool:
        """Return whether this owner holds the lock."""
        model = self.models[semaphore]
        return model.owner == owner and model.ends > self.world.now

    def free(self, semaphore: str, keep: float = 0) -> None:
        """Free the lock in the model."""
        model = self.models[semaphore]
        model.owner, model.offered, model.session = "", False, ""
        model.ends = self.world.now + keep if keep else EXPIRED

    def see_token(self, token: int) -> None:
        """Check that the token is greater than all before."""
        assert token > self.last_token
        self.last_token = token

    def be_woken(self, semaphore: str, owner: str) -> bool:
        """Expect that it is this owner's turn."""
        model, now = self.models[semaphore], self.world.now
        if model.offered and self.is_held(semaphore, owner):
            return True  # an owner that joined again is woken once more
        assert model.ends <= now, f"{owner} was offered what {model.owner!r} has"
        assert self.paused_until(semaphore) <= now, f"{owner} was offered what is paused"
        if model.offered and model.owner in model.queue:
            self.unresponsive.add(model.queue[model.owner])
        there = [each for each, session in model.queue.items() if session not in self.unresponsive]
        assert owner == next(iter(there or model.queue))
        self.free(semaphore)
        self.see_token(self.table.last_token)
        if owner in self.away:
            del model.queue[owner]
            return False
        model.owner, model.offered, model.ends = owner, True, now + OFFER_SECONDS
        model.token = self.last_token
        return True

    @rule(semaphore=SEMAPHORES, owner=OWNERS, ttl=TTLS, session=SESSIONS)
    def acquire(self, semaphore: str, owner: str, ttl: float, session: str) -> None:
        """Acquire: granted if the lock is free or the owner's."""
        lock = self.table.acquire(semaphore, owner, ttl, "", self.sessions[session])
        model, now = self.models[semaphore], self.world.now
        if model.ends > now or self.paused_until(semaphore) > now:
            self.unresponsive.discard(model.queue.get(owner, ""))
        if model.ends <= now < self.paused_until(semaphore):
            assert lock is None
            return
        if model.ends > now:
            assert (lock is not None) == (model.owner == owner)
            if lock is None:
                return
            assert lock.token == model.token
            if model.offered:
                del model.queue[owner]
        else:
            assert lock is not None
            assert not model.queue, "somebody was overtaken"
            self.see_token(lock.token)
        model.owner, model.ends, model.token = owner, now + ttl, lock.token
        model.offered, model.session = False, session

    @rule(semaphore=SEMAPHORES, owner=OWNERS, ttl=TTLS, session=SESSIONS)
    def renew(self, semaphore: str, owner: str, ttl: float, session: str) -> None:
        """Renew the owner's lease."""
        held = self.is_held(semaphore, owner)
        assert self.table.renew(semaphore, owner, ttl, self.sessions[session]) == held
        if held:
            self.models[semaphore].ends = self.world.now + ttl
            self.models[semaphore].session = session

    @rule(semaphore=SEMAPHORES, owner=OWNERS, keep=st.sampled_from([0, 0, 2]))
    def release(self, semaphore: str, owner: str, keep: float) -> None:
        """Release the lock of its owner."""
        model, held = self.models[semaphore], self.is_held(semaphore, owner)
        if held:
            model.queue.pop(owner, None)
            self.free(semaphore, keep)
        released = self.table.release(semaphore, owner, keep)
        if not held:
            assert released is Released.NOT_HELD
        else:
            assert released is (Released.HANDED_OVER if model.offered else Released.FREED)

    @rule(semaphore=SEMAPHORES, stale=st.booleans())
    def force_release(self, semaphore: str, stale: bool) -> None:
        """Force-release a held or kept lock."""
        model = self.models[semaphore]
        held = model.ends > self.world.now and not stale
        if held:
            self.free(semaphore)
        assert self.table.force_release(semaphore, model.token - stale) == held

    @rule(semaphore=SEMAPHORES, owner=OWNERS, session=SESSIONS, there=st.booleans())
    def join(self, semaphore: str, owner: str, session: str, there: bool) -> None:
        """Join the queue, or keep the place in it."""
        self.table.remaining(semaphore)  # ended locks go to their waiters first
        self.models[semaphore].queue[owner] = session
        self.unresponsive.discard(session)
        self.away -= {owner}
        self.away |= set() if there else {owner}
        left = self.table.join(
            semaphore, owner, "", lambda: self.be_woken(semaphore, owner), self.sessions[session]
        )
        ends = max(self.models[semaphore].ends, self.paused_until(semaphore))
        assert left == max(ends - self.world.now, 0)

    @rule(semaphore=SEMAPHORES, owner=OWNERS)
    def leave(self, semaphore: str, owner: str) -> None:
        """Leave the queue."""
        model = self.models[semaphore]
        model.queue.pop(owner, None)
        if model.offered and model.owner == owner:
            self.free(semaphore)
        self.table.leave(semaphore, owner)

    @rule(session=SESSIONS)
    def end_session(self, session: str) -> None:
        """End a session's waits and bound leases."""
        for semaphore, model in self.models.items():
            for owner in [each for each, where in model.queue.items() if where == session]:
                del model.queue[owner]
                if model.offered and model.owner == owner:
                    self.free(semaphore)
            if model.session == session:
                self.free(semaphore)
        self.table.end_session(self.sessions[session])
        assert not self.sessions[session].waiting
        assert not self.sessions[session].bound

    @rule(prefix=PREFIXES, seconds=TTLS)
    def pause(self, prefix: str, seconds: float) -> None:
        """Pause grants; what is offered is not taken any more."""
        now = self.world.now
        self.table.run_due()
        self.pauses[prefix] = now + seconds
        for semaphore, model in self.models.items():
            if model.offered and model.ends > now and semaphore.startswith(prefix):
                self.free(semaphore)
        self.table.pause(prefix, seconds, "", "")

    @rule(prefix=PREFIXES)
    def resume(self, prefix: str) -> None:
        """End a pause."""
        found = self.pauses.pop(prefix, EXPIRED) > self.world.now
        assert self.table.resume(prefix) is found

    @rule()
    def clear(self) -> None:
        """Clear the table."""
        self.pauses.clear()
        for semaphore, model in self.models.items():
            if model.ends > self.world.now and not model.offered:
                self.free(semaphore)
        self.table.clear()

    @rule(seconds=st.sampled_from([0.25, 0.5, OFFER_SECONDS, 3.0]), clock=st.integers(-3, 3))
    def let_pass(self, seconds: float, clock: int) -> None:
        """Advance the clocks without running what is due; the wall clock moves by itself."""
        self.world.now += seconds
        self.world.wall += clock

    @rule()
    def look_after(self) -> None:
        """Run what is due."""
        seconds = self.table.run_due()
        assert seconds > 0
        for semaphore, model in self.models.items():
            ends = model.ends > self.world.now
            is_paused = self.paused_until(semaphore) > self.world.now
            assert (ends or bool(is_paused and model.queue)) == (semaphore in self.table.locks)
            assert ends or is_paused or not model.queue, "nobody holds what is waited for"
            assert not ends or model.ends - self.world.now >= seconds

    @invariant()
    def agree(self) -> None:
        """Expect the table to be as the model."""
        assert_sound(self.table)
        now = self.world.now
        for semaphore, model in self.models.items():
            lock = self.table.locks.get(semaphore)
            if lock is None:
                assert model.ends <= now
                assert not model.queue
                continue
            assert list(lock.queue or ()) == list(model.queue)
            for owner, waiter in (lock.queue or {}).items():
                assert waiter.session is self.sessions[model.queue[owner]]
            is_free = self.pauses and max(lock.expires, model.ends) <= now
            assert is_free or lock.expires == model.ends
            if model.ends > now:
                assert (lock.owner, lock.offered) == (model.owner, model.offered)
                assert lock.session is self.sessions.get(model.session)
        assert len(self.table.waiters) == sum(len(model.queue) for model in self.models.values())
        for name, session in self.sessions.items():
            assert {semaphore for semaphore, _ in session.waiting} <= set(self.models)
            assert session.unresponsive == (name in self.unresponsive)
            assert session.waiting == {
                (semaphore, owner)
                for semaphore, model in self.models.items()
                for owner, where in model.queue.items()
                if where == name
            }


def test_model_holds_in_a_fixed_course() -> None:
    """Cases that random actions may miss: offers taken, repeated, declined, missed, ended."""
    machine = Anything()
    machine.acquire("1234collectPayment", "one", 60.0, "left")
    for number, owner in enumerate(("two", "three", "four", "five")):
        machine.join(
            "1234collectPayment", owner, ("left", "right")[number % 2], there=owner != "four"
        )
    machine.agree()
    machine.force_release("1234collectPayment", stale=True)
    machine.force_release("1234collectPayment", stale=False)
    machine.join("1234collectPayment", "two", "left", there=True)
    machine.leave("1234collectPayment", "two")
    machine.let_pass(OFFER_SECONDS, clock=-3)
    machine.look_after()
    machine.join("1234collectPayment", "two", "elsewhere", there=True)
    machine.end_session("right")
    machine.agree()
    machine.acquire("1234collectPayment", "one", 60.0, "left")
    machine.acquire("1234collectPayment", "two", 60.0, "left")
    machine.renew("1234collectPayment", "two", 60.0, "right")
    machine.join("1234collectPayment", "four", "left", there=False)
    machine.join("1234collectPayment", "one", "left", there=True)
    machine.end_session("right")
    machine.acquire("1234collectPayment", "one", 60.0, "left")
    machine.join("1234collectPayment", "two", "left", there=True)
    machine.clear()
    machine.release("1234collectPayment", "two", keep=2)
    machine.force_release("1234collectPayment", stale=False)
    machine.release("1234collectPayment", "two", keep=0)
    machine.look_after()
    machine.agree()
    machine.join("1234collectPayment", "three", "left", there=True)
    machine.pause("1234", 3.0)
    machine.release("1234collectPayment", "three", keep=0)
    machine.acquire("1234collectPayment", "two", 60.0, "left")
    machine.resume("9")
    machine.let_pass(3.0, clock=0)
    machine.look_after()
    machine.agree()


Anything.TestCase.settings = settings(
    max_examples=70,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # other work on this machine makes it slow
)
test_table_agrees_with_the_model_whatever_happens = Anything.TestCase
