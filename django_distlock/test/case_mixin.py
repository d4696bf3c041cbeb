"""`LockTestMixin`: assertions about locks, and their checks after each test, for TestCase."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import TestCase, TestResult

from .assertions import holder_in_store, why_not_locked
from .leaks import no_lock_held_after_test
from .lock_order import consistent_lock_order
from .overriding import override_locks

if TYPE_CHECKING:
    _TestCase = TestCase
else:
    _TestCase = object


class LockTestMixin(_TestCase):
    """Assertions about locks, and checks after each test, for a `TestCase` of Django or Python.

    Write it before the class: `class PaymentTests(LockTestMixin, TestCase)`.
    """

    real_locks: ClassVar[bool] = False
    """Whether tests use the stores of `DISTLOCK`; else their locks are in memory."""
    check_lock_order: ClassVar[bool] = True
    """Whether a test fails if it takes two locks in the opposite order of an earlier test."""
    check_leaks: ClassVar[bool] = False
    """Whether a test fails if it leaves a lock held."""

    def run(self, result: TestResult | None = None) -> TestResult | None:
        with ExitStack() as stack:
            for context in self._contexts():
                stack.enter_context(context)
            self.addCleanup(stack.close)  # a skipped test has no clean-up
            return super().run(result)

    def _contexts(self) -> Iterator[AbstractContextManager[Any]]:
        if not self.real_locks:
            yield override_locks()
        if self.check_leaks:
            yield no_lock_held_after_test()
        if self.check_lock_order:
            watching = consistent_lock_order()
            watching.test = self.id()
            yield watching

    def assertLocked(  # noqa: N802
        self, semaphore: str, *, backend: str = "default", msg: object = None
    ) -> None:
        """Fail unless the running thread, task or request holds this lock.

        See `assert_locked()`.
        """
        if problem := why_not_locked(semaphore, backend):
            self._fail(problem, msg)

    def assertHeld(  # noqa: N802
        self, semaphore: str, *, backend: str = "default", msg: object = None
    ) -> None:
        """Fail unless this lock is held, by any holder. The store is asked."""
        if holder_in_store(semaphore, backend) is None:
            self._fail(f"{semaphore!r} is not held in DISTLOCK[{backend!r}].", msg)

    def assertNotHeld(  # noqa: N802
        self, semaphore: str, *, backend: str = "default", msg: object = None
    ) -> None:
        """Fail if this lock is held, by any holder. The store is asked."""
        holder = holder_in_store(semaphore, backend)
        if holder is not None:
            self._fail(f"{semaphore!r} is held in DISTLOCK[{backend!r}] by {holder}.", msg)

    def _fail(self, problem: str, msg: object) -> None:
        """Fail as unittest's own assertions do."""
        if msg is None:
            self.fail(problem)
        self.fail(f"{problem} : {msg}" if self.longMessage else msg)
