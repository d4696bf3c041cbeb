"""Pauses: nothing new is granted for a while, and holders keep their locks."""

import asyncio
import threading
from datetime import UTC, timedelta
from functools import partial

from django_distlock.backends.base import AsyncStore
from django_distlock.backends.operations import PausingStore
from django_distlock.clocks import monotonic
from django_distlock.exceptions import LockNotSupported
from django_distlock.leases.request import new_owner
from django_distlock.locks.api import acquire_lock
from django_distlock.records import REFUSED, Grant, Pause, Refusal, Released

from .queueing import QueueingTests


class PausingTests(QueueingTests):
    """The methods of PausingStore. A test pauses only what begins with a name of its own."""

    def pausing_store(self) -> PausingStore:
        """Return the store; skip the test if it can't pause."""
        store = self.backend
        if not isinstance(store, PausingStore) or not store.supports_pausing:
            raise self.lacks("pauses")
        return store

    def pause(self, prefix: str, seconds: float | None = None, reason: str = "") -> Pause:
        """Pause until the test ends at the latest."""
        store = self.pausing_store()
        self.addCleanup(store.resume, prefix)
        return store.pause(prefix, seconds, reason=reason, by="the contract")

    def paused(self, prefix: str) -> list[Pause]:
        """Return the pauses in force that begin with the prefix."""
        return [each for each in self.pausing_store().pauses() if each.prefix.startswith(prefix)]

    def test_store_that_cannot_pause_says_so(self) -> None:
        if not self.backend.supports_pausing:
            with self.assertRaises(LockNotSupported):
                self.backend.pause(self.new_semaphore())
            with self.assertRaises(LockNotSupported):
                self.backend.resume(self.new_semaphore())
            self.assertEqual(self.backend.pauses(), [])

    def test_pause_refuses_new_grants_and_says_why(self) -> None:
        semaphore = self.new_semaphore()
        pause = self.pause(semaphore, 60, "deploy 7")
        refusal = self.try_once(semaphore)
        assert isinstance(refusal, Refusal) and pause.until is not None
        if refusal != REFUSED or self.backend.tells_holder:
            self.assertEqual((refusal.holder, refusal.reason), ("", "paused: deploy 7"))
            assert refusal.seen_at is not None
            self.assert_close(refusal.expires_at, pause.until)
            self.assert_close(refusal.seen_at + timedelta(seconds=60), pause.until, 30)
        self.assertFalse(self.try_once(f"{semaphore}, and more"))
        self.assertTrue(self.pausing_store().resume(semaphore))
        self.assert_free(semaphore)

    def test_pause_refuses_new_grants_in_an_event_loop_too(self) -> None:
        store, semaphore = self.pausing_store(), self.new_semaphore()
        if not isinstance(store, AsyncStore):
            raise self.lacks("coroutines")
        self.pause(semaphore, 60, "deploy 7")
        arguments = (semaphore, new_owner(), 60, "contract")
        deadline = store.new_deadline()

        async def attempt() -> Grant | Refusal:
            return await store.aacquire(*arguments, deadline=deadline)

        refusal = asyncio.run(attempt())
        assert isinstance(refusal, Refusal)
        self.assertEqual((refusal.holder, refusal.reason), ("", "paused: deploy 7"))

    def test_pause_without_an_end_lasts_until_it_is_resumed(self) -> None:
        semaphore = self.new_semaphore()
        self.assertIsNone(self.pause(semaphore).until)
        refusal = self.try_once(semaphore)
        assert isinstance(refusal, Refusal)
        if refusal != REFUSED or self.backend.tells_holder:
            self.assertEqual((refusal.reason, refusal.expires_at), ("paused", None))
        self.assertTrue(self.pausing_store().resume(semaphore))
        self.assertFalse(self.pausing_store().resume(semaphore))
        self.assert_free(semaphore)

    def test_those_who_hold_locks_go_on(self) -> None:
        """They acquire them again, renew and release them; then nobody gets them."""
        held = self.grant(self.new_semaphore())
        self.pause(held.semaphore)
        again = self.grant(held.semaphore, owner=held.owner)
        self.assertEqual(again.token, held.token)
        self.assertTrue(self.backend.renew([held])[held.owner].renewed)
        self.assertIs(self.backend.release(held), Released.FREED)
        self.assertFalse(self.try_once(held.semaphore))

    def test_lease_whose_ttl_passes_in_a_pause_is_granted_to_nobody(self) -> None:
        self.pausing_store()
        [expired] = self.expired(self.new_semaphore())
        self.pause(expired.semaphore)
        self.assertFalse(self.try_once(expired.semaphore))
        self.assertFalse(self.backend.acquire(expired.semaphore, expired.owner, 60, "contract"))

    def test_paused_prefix_is_taken_literally(self) -> None:
        name = self.new_semaphore()
        for prefix, alike in (("%", "ab"), ("_", "ab"), ("A", "ab"), ("é", "eb"), ("a ", "ab")):
            self.pause(f"{name}{prefix}")
            self.assertFalse(self.try_once(f"{name}{prefix}"), prefix)
            self.assertFalse(self.try_once(f"{name}{prefix}b"), prefix)
            self.assertTrue(self.try_once(f"{name}{alike}{prefix}"), prefix)
        self.assertTrue(self.try_once(f"another {name}%"))

    def test_empty_prefix_pauses_all(self) -> None:
        self.pause("")
        self.assertFalse(self.try_once(self.new_semaphore()))
        self.assertEqual(self.paused("")[0].prefix, "")
        self.assertTrue(self.pausing_store().resume(""))
        self.assert_free(self.new_semaphore())

    def test_pauses_are_listed_in_the_order_of_their_prefixes(self) -> None:
        name, second = self.new_semaphore(), timedelta(seconds=1)
        for ending in ("b", "a", "c"):
            paused = self.pause(name + ending, 60, f"reason {ending}")
            assert paused.until is not None
            self.assertEqual(paused.since.tzinfo, UTC)
            self.assert_close(paused.since + 60 * second, paused.until)
        self.pause(f"{name}b", reason="another reason")
        found = self.paused(name)
        self.assertEqual(
            [(each.prefix.removeprefix(name), each.reason, each.by) for each in found],
            [
                (e, r, "the contract")
                for e, r in (("a", "reason a"), ("b", "another reason"), ("c", "reason c"))
            ],
        )
        self.assertIsNone(found[1].until)
        self.assert_close(found[2].until, paused.until)
        self.assertTrue(self.pausing_store().resume(f"{name}a"))
        self.assertEqual(len(self.paused(name)), 2)

    def test_pause_ends_by_itself(self) -> None:
        """Then it is not listed, and there is nothing to resume."""
        semaphore = self.new_semaphore()
        self.pause(semaphore, 0.05)
        self.wait_until(lambda: bool(self.try_once(semaphore)))
        self.wait_until(lambda: self.paused(semaphore) == [])
        self.assertFalse(self.pausing_store().resume(semaphore))

    def test_pause_can_be_made_longer_and_shorter(self) -> None:
        semaphore = self.new_semaphore()
        self.pause(semaphore, 0.05)
        self.pause(semaphore)
        began = monotonic()
        while monotonic() < began + 0.06:
            self.assertFalse(self.try_once(semaphore))
        self.pause(semaphore, 0.01)
        self.wait_until(lambda: bool(self.try_once(semaphore)))

    def test_longest_of_several_pauses_counts(self) -> None:
        semaphore = self.new_semaphore()
        self.pause(semaphore, 60)
        self.pause(semaphore[:-1], 60)
        self.assertTrue(self.pausing_store().resume(semaphore))
        self.assertFalse(self.try_once(semaphore))

    def test_what_cannot_be_paused_is_refused(self) -> None:
        store = self.pausing_store()
        for prefix, seconds, reason in (
            ("a\n", 1.0, ""),
            ("a" * 256, 1, ""),
            ("a", 0, ""),
            ("a", float("nan"), ""),
            ("a", 1, "two\nlines"),
            ("a", 1, "long" * 100),
        ):
            with self.assertRaises(ValueError):
                store.pause(prefix, seconds, reason=reason)

    def test_nothing_is_granted_after_a_pause_has_begun(self) -> None:
        """Whatever attempts are under way at that moment: none of them gets anything later."""
        name, store = self.new_semaphore(), self.pausing_store()
        numbers, is_paused, granting = iter(range(10**9)), threading.Event(), threading.Event()

        def attempt() -> list[Grant | Refusal]:
            later: list[Grant | Refusal] = []
            while len(later) < 5:
                begun_after = is_paused.is_set()
                grant = self.try_once(f"{name}/{next(numbers)}")
                granting.set()
                if begun_after:
                    later.append(grant)
            return later

        def pause_in_between() -> list[Grant | Refusal]:
            granting.wait(30)
            self.backend.pause(name)
            is_paused.set()
            return []

        self.addCleanup(store.resume, name)
        actions = iter([pause_in_between, attempt, attempt, attempt])

        def act() -> list[Grant | Refusal]:
            action = next(actions)
            return action()

        results = self.in_threads(4, act)
        self.assertEqual([grant for later in results for grant in later if grant], [])

    def test_release_in_a_pause_hands_the_lock_over_to_nobody(self) -> None:
        """The waiter gets it when the pause is resumed."""
        held = self.grant(self.new_semaphore())
        waiter = self.join(held.semaphore)
        self.pause(held.semaphore)
        self.assertIs(self.backend.release(held), Released.FREED)
        waits_on = self.backend.acquire(held.semaphore, waiter.owner, 60, "contract")
        assert isinstance(waits_on, Refusal)
        self.assertTrue(self.pausing_store().resume(held.semaphore))
        self.assert_given_to(waiter, held)

    def test_waiter_that_was_offered_a_lock_before_the_pause_gets_it_afterwards(self) -> None:
        held = self.grant(self.new_semaphore())
        waiter = self.join(held.semaphore)
        self.assertTrue(self.backend.release(held))
        self.pause(held.semaphore)
        offered = self.backend.acquire(held.semaphore, waiter.owner, 60, "contract")
        assert isinstance(offered, Refusal)
        self.assertTrue(self.pausing_store().resume(held.semaphore))
        self.assert_given_to(waiter, held)

    def test_waiting_call_gets_the_lock_soon_after_the_pause(self) -> None:
        """Whether it ends or is resumed; until then, the call waits on."""
        for seconds in (None, 0.2):
            semaphore, ended = self.new_semaphore(), monotonic() + (seconds or 0)
            pause = self.pause(semaphore, seconds)
            granted: list[float] = []

            def wait(semaphore: str = semaphore, granted: list[float] = granted) -> None:
                lease = acquire_lock(semaphore, timeout=30, backend=self.alias)
                granted.append(monotonic())
                assert lease is not None
                lease.release()

            waiting = threading.Thread(target=partial(self.in_threads, 1, wait))
            waiting.start()
            if seconds is None:
                waiting.join(0.1)
                ended = monotonic()
                self.assertTrue(self.pausing_store().resume(pause.prefix))
            waiting.join(30)
            [moment] = granted
            self.assertGreaterEqual(moment, ended - self.clock_tick)
            self.assertLess(moment, ended + 10)
