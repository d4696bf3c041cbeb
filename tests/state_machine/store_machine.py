"""A state machine that does anything to a store, and compares its answers with the promise."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from django_distlock.records import LockInfo, LockQuery, LockState
from tests.state_machine.holder_machine import ANY, SLACK, HolderMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = st.sampled_from([500, 500, 1000, 2500, -500, -1000])
LENGTHS = st.sampled_from([0, 0, 1, 4, 255])
"""Characters of a semaphore that make a prefix."""
STATES = st.sampled_from([None, LockState.HELD, LockState.STALE])
AGE = timedelta(seconds=125)


class StoreMachine(HolderMachine):
    """Calls the store as operators do, too, and moves its clock."""

    @precondition(lambda self: self.lists)
    @rule(number=ANY, error=st.sampled_from([0, 0, -500, 500]))
    def force_release(self, number: int, error: int) -> None:
        """Take the lock from its holder, by the token that was seen or by a wrong one."""
        semaphore = self.any_semaphore(number)
        held = self.promise.is_held(semaphore) and not error
        token = max(self.promise.lock(semaphore).token + error, 0)
        assert self.store.force_release(semaphore, token) == held
        if held:
            self.promise.release(semaphore)

    @precondition(lambda self: self.lists)
    @rule(number=ANY, length=LENGTHS, state=STATES, limit=st.integers(0, 3))
    def look(self, number: int, length: int, state: LockState | None, limit: int) -> None:
        """Look at one lock, at all of them, and at some, page by page."""
        self.find(self.any_semaphore(number))
        prefix = self.any_semaphore(number)[:length]
        found = [*self.store.held(prefix)]
        self.compare(found, prefix)
        if any(lock.unsettled for lock in self.promise.locks.values()):
            return  # an offer may end between two lists
        some = [each.semaphore for each in self.store.held(prefix, limit)]
        assert some == [each.semaphore for each in found[:limit]]
        self.compare([*self.turn_pages(prefix, state, limit or 100)], prefix, state)

    def turn_pages(self, prefix: str, state: LockState | None, limit: int) -> Iterator[LockInfo]:
        """Yield the locks of all pages."""
        for number in range(1, len(self.semaphores) + 2):
            page = self.store.page(LockQuery(prefix, state=state, page=number, limit=limit))
            assert len(page.locks) == max(min(limit, page.found - limit * (number - 1)), 0)
            yield from page.locks

    def compare(self, found: list[LockInfo], prefix: str, state: LockState | None = None) -> None:
        """Expect the locks in this state that the promise knows of."""
        names = [each.semaphore for each in found]
        assert names == sorted({*names})
        held, stale = self.promise.held(prefix), self.promise.stale(prefix)
        expected = held if state is not LockState.STALE else []
        if self.keeps_expired and state is not LockState.HELD:
            expected = sorted([*expected, *stale])
        settled = [each for each in found if not self.promise.lock(each.semaphore).unsettled]
        assert [each.semaphore for each in settled] == expected
        for each in settled:
            lock = self.promise.lock(each.semaphore)
            assert (each.token, each.holder) == (lock.token, lock.holder)
            is_held = lock.ends > self.promise.now
            assert each.state is (LockState.HELD if is_held else LockState.STALE)
            if self.store.lists_renewals and is_held:
                assert each.kept == lock.released
            assert (each.expires_at is None) == (lock.ends == math.inf)
            if each.expires_at is not None:
                left = (each.expires_at - each.seen_at).total_seconds()
                assert abs(left - (lock.ends - self.promise.now)) < SLACK

    def find(self, semaphore: str) -> None:
        """Look at one lock."""
        found, lock = self.store.find(semaphore), self.promise.lock(semaphore)
        if lock.unsettled:
            return
        listed = self.promise.is_held(semaphore) or (self.keeps_expired and not lock.released)
        if not listed:
            known = self.keeps_expired and lock.known
            assert (found is not None) == known
            assert found is None or found.state is LockState.RELEASED
        else:
            assert found.token == lock.token

    @rule(number=ANY, length=LENGTHS, dry_run=st.booleans())
    def clean_up(self, number: int, length: int, dry_run: bool) -> None:
        """Release expired locks, and delete those released a while ago: no held or kept ones."""
        prefix = self.any_semaphore(number)[:length]
        cleared = [each.semaphore for each in self.store.clear_stale(prefix, dry_run=dry_run)]
        self.compare_settled(cleared, self.promise.stale(prefix))
        for name in [] if dry_run else cleared:
            self.promise.release(name)
        purge = self.store.purge_released(AGE, prefix, dry_run=dry_run)
        purged = [each.semaphore for each in purge]
        self.compare_settled(purged, self.promise.released_before(AGE.total_seconds(), prefix))
        for name in [] if dry_run else purged:
            self.promise.lock(name).known = False

    def compare_settled(self, found: list[str], expected: list[str]) -> None:
        """Expect these semaphores, of those that no waiter may have been offered."""
        settled = [name for name in found if not self.promise.lock(name).unsettled]
        assert settled == (expected if self.keeps_expired else [])

    @precondition(lambda self: self.store.supports_pausing)
    @rule(number=ANY, length=LENGTHS, seconds=st.sampled_from([250, 250, 250, 1250, None]))
    def pause_or_resume(self, number: int, length: int, seconds: float | None) -> None:
        """Pause grants; or if that is done, resume them."""
        prefix = self.any_semaphore(number)[:length]
        in_force = self.promise.pauses_in_force()
        assert [each.prefix for each in self.store.pauses()] == in_force
        if prefix in in_force:
            assert self.store.resume(prefix)
            del self.promise.pauses[prefix]
            return
        self.store.pause(prefix, seconds, reason="deploy")
        self.promise.pauses[prefix] = self.promise.now + (seconds or math.inf)
        self.promise.disturb(prefix)

    # Clocks and connections

    @rule(seconds=STEPS)
    def move_clock(self, seconds: float) -> None:
        """Move the clock past the end of some leases, or back.

        What has ended comes to life again by a step back, where it is still known.
        """
        if seconds < 0 and (
            not self.moved.steps_back
            or (not self.moved.keeps_ended and self.promise.has_ended_within(-seconds))
        ):
            return
        self.moved.move(seconds)
        self.promise.move_clock(max(seconds, 0 if not self.moved.leases_step_back else seconds))

    @precondition(lambda self: self.store.keeps_open)
    @rule()
    def close_connections(self) -> None:
        """Close what is open: the next call opens a connection, and no lease ends with one."""
        self.store.close()
