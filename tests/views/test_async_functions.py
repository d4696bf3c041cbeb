"""Async functions under the lock, and refusal of code that runs after the call."""

from __future__ import annotations

import asyncio
import functools
import inspect
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import SynchronousOnlyOperation
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject

from django_distlock import LockNotAcquired, acquire_lock, distributed_lock, skip
from tests.support.concurrency import run
from tests.support.lazy_users import LazyUser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.urls(__name__), pytest.mark.usefixtures("no_database")]

collect_payment = distributed_lock("<customer>collectPayment")


# Functions


async def work(customer: int, *, urgent: bool = False) -> str:
    """Do some work."""
    return f"{customer} {urgent}"


def test_coroutine_function_stays_one(scripted: ScriptedBackend) -> None:
    """It runs inside the lock, not before (peer defect 5)."""
    inside = []

    async def look(customer: int) -> None:
        await asyncio.sleep(0)
        inside.append(scripted.owner)

    locked = collect_payment(work)
    assert iscoroutinefunction(locked)
    assert inspect.signature(locked) == inspect.signature(work, eval_str=True)
    assert (locked.__name__, locked.__doc__) == (work.__name__, work.__doc__)
    assert run(locked(7, urgent=True)) == "7 True"
    run(collect_payment(look)(7))
    assert inside != [""]
    assert scripted.owner == ""


class Worker:
    """An object that is called."""

    async def __call__(self, customer: int) -> str:
        """Do some work."""
        return await work(customer)

    async def unlocked(self, customer: int) -> str:
        """Do some work."""
        return await work(customer)

    @collect_payment
    async def method(self, customer: int) -> str:
        """Do some work."""
        return await work(customer)

    @classmethod
    @collect_payment
    async def of_class(cls, customer: int) -> str:
        """Do some work."""
        return await work(customer)


@pytest.mark.parametrize(
    "locked",
    [
        collect_payment(Worker()),
        collect_payment(Worker().unlocked),
        collect_payment(functools.partial(work, urgent=False)),
        Worker().method,
        Worker.of_class,
        distributed_lock("another", backend="minimal")(collect_payment(work)),
    ],
    ids=["object", "bound", "partial", "method", "classmethod", "twice"],
)
def test_async_callables_stay_async(
    scripted: ScriptedBackend, locked: Callable[[int], Awaitable[str]]
) -> None:
    """They are locked, too."""
    assert acquire_lock("7collectPayment")
    with pytest.raises(LockNotAcquired):
        run(locked(7))  # type: ignore[arg-type]
    scripted.owner = ""
    assert run(locked(7)) == "7 False"  # type: ignore[arg-type]


@contextmanager
def block(customer: int) -> Iterator[None]:
    """Be a block."""
    yield


@asynccontextmanager
async def ablock(customer: int) -> AsyncIterator[None]:
    """Be an async block."""
    yield


async def agenerate() -> AsyncIterator[int]:
    """Generate."""
    yield 1


def test_code_that_runs_later_is_refused(scripted: ScriptedBackend) -> None:
    """It would run when the lock is released (peer defect 5)."""

    async def returning(customer: int) -> object:
        return agenerate()

    def returning_coroutine(customer: int) -> object:
        return work(customer)

    for later in (
        returning_coroutine,
        lambda customer: (number for number in range(customer)),
        lambda customer: agenerate(),
        block,
        ablock,
    ):
        with pytest.raises(TypeError, match="would run without the lock"):
            collect_payment(later)(7)
        assert scripted.owner == ""
    with pytest.raises(TypeError, match="would run without the lock"):
        run(collect_payment(returning)(7))
    assert scripted.owner == ""


class Customer:
    """An object whose repr must not be in a log."""

    def __repr__(self) -> str:
        raise NotImplementedError

    @method_decorator(distributed_lock("collectPayment"))
    def collect(self) -> object:
        """Return a coroutine to run later."""
        return work(7)


@pytest.mark.usefixtures("scripted")
def test_message_about_later_code_does_not_show_its_object() -> None:
    """A bound method's repr shows its object."""
    with pytest.raises(TypeError, match=r"Customer\.collect returned a coroutine"):
        Customer().collect()


class Generating:
    """An object whose call is a generator."""

    def __call__(self) -> Iterator[int]:
        """Generate."""
        yield 1


def test_object_whose_call_is_a_generator_is_refused() -> None:
    """Like a generator function."""
    with pytest.raises(TypeError, match="is a generator"):
        distributed_lock("report")(Generating())


def test_blocks_and_generators_work_without_the_lock() -> None:
    """They are not refused because they are broken."""

    async def enter() -> list[int]:
        async with ablock(7):
            return [number async for number in agenerate()]

    with block(7):
        assert run(enter()) == [*Generating()()]


def test_lazy_argument_is_evaluated_in_a_thread(scripted: ScriptedBackend) -> None:
    """It may need a query."""

    def find() -> LazyUser:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return LazyUser("7")
        raise SynchronousOnlyOperation

    @distributed_lock("<user.pk>collectPayment")
    async def greet(user: Any) -> str:
        return scripted.owner

    assert run(greet(SimpleLazyObject(find)))


@pytest.mark.parametrize(("on_conflict", "outcome"), [(skip, None), (work, "7 False")])
def test_contended_function_does_something_else(
    on_conflict: Callable[..., Awaitable[Any]], outcome: object
) -> None:
    """on_conflict may be sync or async."""
    assert acquire_lock("7collectPayment")
    locked = distributed_lock("<customer>collectPayment", on_conflict=on_conflict)(work)
    assert run(locked(7)) == outcome


def test_contended_function_raises() -> None:
    """Or waits."""
    lease = acquire_lock("7collectPayment")
    assert lease
    with pytest.raises(LockNotAcquired):
        run(collect_payment(work)(7))
    lease.release()
    assert run(distributed_lock("<customer>collectPayment", timeout=60)(work)(7)) == "7 False"


def test_failing_function_releases(scripted: ScriptedBackend) -> None:
    """It raises its own error."""

    @distributed_lock("report")
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fail())
    assert scripted.owner == ""
