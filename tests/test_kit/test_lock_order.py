"""`consistent_lock_order`: locks that tests take in opposite orders."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from inspect import getsourcelines
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from django_distlock import Lease, LockLost, acquire_lock, distributed_lock, release_lock
from django_distlock.leases import cleanup
from django_distlock.test import lock_order, lose
from tests.support.concurrency import elsewhere
from tests.support.databases import committed
from tests.support.taken_locks import FILE as TAKEN
from tests.support.taken_locks import take

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = "tests/test_kit/test_lock_order.py"
REFUSE = (
    "None of them waits (timeout=0): run at the same time, they refuse each other, and perhaps "
    "none gets all its locks."
)
pytestmark = [pytest.mark.once, pytest.mark.usefixtures("in_memory", "new_orders")]


def sequence(*tests: Callable[[], object]) -> Callable[[], object]:
    """Return a test that does these, one after the other."""
    return lambda: [test() for test in tests]


def report(*tests: Callable[[], object]) -> str:
    """Return what is reported in the last of these tests, and nothing is before."""
    problems = []
    for number, test in enumerate(tests):
        lock_order.lock_order.start(f"test_{number + 1}")
        test()
        problems.append(lock_order.lock_order.finish())
    assert not any(problems[:-1])
    return problems[-1]


def test_opposite_orders_are_reported_once_with_all_four_places() -> None:
    """In the test that closes the cycle, whatever the ids are."""
    payment, order = "12collectPayment", "7shipOrder"
    line = getsourcelines(take)[1] + 6
    place = f"at {TAKEN}:{line}, in take.<locals>.test"
    assert report(take(payment, order), take("8shipOrder", "13collectPayment")).splitlines() == [
        "Possible deadlock: two locks are taken in opposite orders.",
        "  <…>shipOrder, then <…>collectPayment, in test_2:",
        f"    '8shipOrder' {place}",
        f"    '13collectPayment' {place} (timeout=0)",
        "  <…>collectPayment, then <…>shipOrder, in test_1:",
        f"    '12collectPayment' {place}",
        f"    '7shipOrder' {place} (timeout=0)",
        f"  {REFUSE}",
        "  Take the locks in one order everywhere.",
    ]
    assert report(take(payment, order), take(order, payment)) == ""


def test_longer_cycles_are_found() -> None:
    """A before B, B before C, C before A; in one test, too."""

    def all_three() -> None:
        take("A", "B")()
        take("B", "C")()
        take("C", "A")()

    found = report(all_three)
    assert "3 locks are taken in orders that form a circle" in found
    assert [line for line in found.splitlines() if "then" in line] == [
        "  C, then A, in test_1:",
        "  A, then B, in test_1:",
        "  B, then C, in test_1:",
    ]


@pytest.mark.parametrize(
    ("first", "then", "consequence"),
    [
        ({}, {}, "they refuse each other"),
        ({"timeout": 5}, {}, "one waits for a lock until the other one is refused"),
        ({"timeout": 5}, {"timeout": 20}, "wait for each other: until a timeout, of 5 s"),
        ({"timeout": None}, {"timeout": None}, "they wait for each other: forever"),
    ],
)
def test_the_consequence_depends_on_the_timeouts(
    first: dict[str, Any], then: dict[str, Any], consequence: str
) -> None:
    """An order that waited once counts as one that waits."""
    earlier = sequence(take("A", "B"), take("A", "B", **first), take("A", "B"))
    twice = sequence(take("A", "B"), take("A", "B"))
    found = report(twice, earlier, twice, take("B", "A", **then))
    assert consequence in found


def test_locks_of_one_class_are_compared_by_their_names() -> None:
    """As in a transfer between two accounts, which are locked in the order of their ids."""
    assert report(take("1account", "2account"), take("2account", "3account")) == ""
    found = report(take("2account", "1account"))
    assert "2account, then 1account" in found
    identity, other = [f"{digit * 8}-1111-4111-8111-{digit * 12}:x" for digit in "ab"]
    assert report(take(identity, other), take(identity, other)) == ""


def test_a_template_and_a_semaphore_of_it_are_one_class() -> None:
    """The decorator is compared with acquire_lock()."""

    @distributed_lock("<int:customer_id>collectPayment")
    def collect(customer_id: int) -> None:
        take("7shipOrder")()

    @distributed_lock(lambda number: f"{number}")
    def ship(number: int) -> None:
        take("7shipOrder")()

    line = getsourcelines(collect)[1]
    found = report(lambda: collect(1234), take("7shipOrder", "5678collectPayment"))
    name = f"{test_a_template_and_a_semaphore_of_it_are_one_class.__name__}.<locals>.collect"
    assert f"    '1234collectPayment' at {FILE}:{line}, in {name}" in found
    assert "<…>collectPayment, then <…>shipOrder, in test_1" in found
    # A callable is a class of its own.
    assert report(take("7shipOrder", "8"), lambda: ship(8)) == ""


@pytest.mark.parametrize(
    "test",
    [
        pytest.param(take("A", "B", "A", reentrant=True), id="reentry"),
        pytest.param(sequence(take("A", "B"), take("B"), take("A")), id="released"),
    ],
)
def test_reentry_and_locks_that_were_released_make_no_order(test: Callable[[], object]) -> None:
    """The lock is had already, or not held any more."""
    assert report(test) == ""


def test_stores_have_different_locks_of_one_name() -> None:
    """A in one store before B is no contradiction to B before A in another one."""

    def mixed() -> None:
        with distributed_lock("A"), distributed_lock("B"):
            pass
        with distributed_lock("B"), distributed_lock("A", backend="other"):
            pass

    assert report(mixed) == ""

    def opposite() -> None:
        with distributed_lock("A", backend="other"), distributed_lock("B"):
            pass

    assert "A (other), then B" in report(opposite)


def test_what_other_threads_and_tasks_hold_does_not_count() -> None:
    """Nor what is held elsewhere when a refusal comes."""

    async def main() -> None:
        async with distributed_lock("A"):
            await asyncio.create_task(child("B"))
        async with distributed_lock("B"):
            await asyncio.create_task(child("A"))

    async def child(semaphore: str) -> None:
        async with distributed_lock(semaphore):
            pass

    def threads() -> None:
        with distributed_lock("A"):
            elsewhere(take("B"))
        with distributed_lock("B"):
            elsewhere(take("A"))

    assert report(lambda: asyncio.run(main()), threads) == ""


def test_sync_code_of_a_task_holds_what_the_task_holds() -> None:
    """sync_to_async() makes no difference; a contended attempt counts, too."""

    def attempt() -> None:
        assert acquire_lock("A") is None

    async def main() -> None:
        async with distributed_lock("B"):
            await sync_to_async(attempt)()

    def contended() -> None:
        holder = elsewhere(lambda: acquire_lock("A"))
        assert holder is not None
        asyncio.run(main())
        holder.release()

    found = report(take("A", "B"), contended)
    assert f"'A' at {FILE}:{getsourcelines(attempt)[1] + 1}, in" in found


def test_a_lease_that_was_passed_on_is_not_held_by_the_one_that_acquired_it() -> None:
    """As when another thread works under it and releases it."""

    def passing() -> None:
        lease = acquire_lock("A")
        assert lease is not None
        worker = threading.Thread(target=work, args=[lease])
        worker.start()
        with distributed_lock("B"):
            may_end.set()
            worker.join()

    def work(lease: Lease) -> None:
        may_end.wait(60)
        lease.release()

    may_end = threading.Event()
    assert report(passing, take("B", "A")) == ""


def test_what_is_held_around_a_request_or_task_does_not_count() -> None:
    """As by a test that makes a request, or by code whose tasks run eagerly."""

    def around(held: str, test: Callable[[], object]) -> Callable[[], object]:
        def outer() -> None:
            with distributed_lock(held):
                cleanup.start("a task", "1")
                test()
                cleanup.finish("1")
                take("after")()

        return outer

    found = report(around("A", take("B")), around("B", take("A", "C")), around("D", take("C", "A")))
    assert "C, then A, in test_3" in found
    assert "A, then C, in test_2" in found
    assert "  A, then after, in test_1" in report(take("after", "A"))


def test_a_lost_lock_is_held_until_its_loss() -> None:
    """The order before that counts."""

    def losing() -> None:
        with suppress(LockLost), distributed_lock("A"):
            take("B")()
            lose("A")
            take("C")()

    found = report(take("B", "A"), take("C", "A"), losing)
    assert "A, then B, in test_3" in found
    assert "C" not in found


@committed
def test_a_release_that_waits_for_a_transaction_holds_the_lock_until_then() -> None:
    """Others get it after the commit. The lock may be taken again meanwhile."""

    def deferred() -> None:
        with transaction.atomic(using="locks"):
            take("A")()
            take("B")()
            take("A", "C")()
        take("D")()

    found = report(take("D", "A"), take("B", "A"), take("C", "A"), deferred)
    assert "then D, in test_4" not in found
    assert "A, then B, in test_4" in found
    assert "A, then C, in test_4" in found


def test_a_lock_that_is_held_over_the_end_of_a_test_counts_in_both() -> None:
    """As a fixture of a module may hold it."""
    assert report(lambda: acquire_lock("A"), take("B")) == ""
    release_lock("A")
    assert "A, then B, in test_2" in report(take("B", "A")).replace("test_1", "test_3")
