"""distributed_lock around blocks and plain functions."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    LockNotAcquired,
    acquire_lock,
    distributed_lock,
    release_lock,
    skip,
)
from tests.support.leases import internals
from tests.support.moved_clock import MovedClock
from tests.support.scripted_store import ScriptedBackend

DOWN = LockBackendUnavailable("down")


@distributed_lock("<customer_id>collectPayment")
def collect(customer_id: int, amount: int = 0) -> str:
    """Collect."""
    assert acquire_lock(f"{customer_id}collectPayment") is None
    return f"{amount} from {customer_id}"


def test_block_holds_its_semaphore(scripted: ScriptedBackend) -> None:
    """It yields the lease, which is held inside and released afterwards."""
    with distributed_lock("1234collectPayment", ttl=5) as lease:
        assert (lease.semaphore, lease.ttl, lease.held) == ("1234collectPayment", 5, True)
    assert internals(lease).released
    assert scripted.owner == ""


def test_contended_block_raises(scripted: ScriptedBackend) -> None:
    """Its body doesn't run."""
    acquire_lock("report")
    with pytest.raises(LockNotAcquired, match="'report'"), distributed_lock("report"):
        pytest.fail("ran")


def test_stop_iteration_passes_a_block_and_a_call(scripted: ScriptedBackend) -> None:
    """Like any exception: a coroutine or generator in between would make it a RuntimeError."""
    with pytest.raises(StopIteration), distributed_lock("report"):
        next(iter([]))

    @distributed_lock(lambda: "report")
    def work() -> None:
        next(iter([]))

    with pytest.raises(StopIteration):
        work()
    assert scripted.calls == ["acquire", "release"] * 2


def test_one_object_serves_nested_and_simultaneous_blocks(scripted: ScriptedBackend) -> None:
    """It keeps no state of a block (peer defects 1 and 9)."""
    lock = distributed_lock("report")
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            inside.set()
            assert leave.wait(60)

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(hold)
        assert inside.wait(60)
        for _ in range(3):
            with pytest.raises(LockNotAcquired), lock:
                pytest.fail("ran")
        leave.set()
        holding.result()
    with lock as lease:
        pass
    assert internals(lease).released


def test_late_exit_does_not_release_the_successors_lease(scripted: ScriptedBackend) -> None:
    """The first's lease expired, the second has the semaphore, the first leaves (peer defect 9)."""
    lock = distributed_lock("report")
    with pytest.raises(LockLost), lock:
        scripted.owner = "successor"
    assert scripted.owner == "successor"


def test_block_whose_lease_was_lost_raises_at_its_end(scripted: ScriptedBackend) -> None:
    """The error has the lease that was lost."""
    with pytest.raises(LockLost, match="before its block ended") as caught:
        with distributed_lock("report") as lease:
            scripted.owner = ""
    assert caught.value.lease is lease


def test_bodys_exception_wins_over_a_lost_lease(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """The first error is raised; the loss is logged (peer defects 8 and 12)."""
    with pytest.raises(ZeroDivisionError), distributed_lock("report"):
        scripted.owner = ""
        raise ZeroDivisionError
    assert "was lost before a block that failed" in caplog.text


def test_failed_block_is_released(scripted: ScriptedBackend) -> None:
    """At once."""
    with pytest.raises(ZeroDivisionError), distributed_lock("report"):
        raise ZeroDivisionError
    assert acquire_lock("report")


def test_block_that_released_by_itself_ends_quietly(scripted: ScriptedBackend) -> None:
    """By name or by lease."""
    with distributed_lock("report"):
        assert release_lock("report")
    with distributed_lock("report") as lease:
        assert lease.release()


def test_store_down_at_the_end_is_logged(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """The work was done under the lock, whose lease ends by itself."""
    with distributed_lock("report") as lease:
        scripted.answer("release", DOWN)
    assert lease.held
    assert caplog.records[0].levelno == logging.ERROR
    assert "it ends by itself" in caplog.text
    assert str(internals(lease).owner) not in caplog.text


def test_store_down_at_the_end_of_an_unlimited_lease_raises(scripted: ScriptedBackend) -> None:
    """The lock would be held for ever."""
    with pytest.raises(LockBackendUnavailable), distributed_lock("report", ttl=None):
        scripted.answer("release", DOWN)


def test_store_down_after_the_ttl_means_lost(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """Another owner may have held the lock since."""
    scripted.answer("release", DOWN)
    with pytest.raises(LockLost), distributed_lock("report", renew=False) as lease:
        moved_clock.expire(lease)


def test_function_is_called_under_its_semaphore(scripted: ScriptedBackend) -> None:
    """The semaphore is made of its arguments, however they are given."""
    assert collect(1234, amount=5) == "5 from 1234"
    assert collect(customer_id=1234) == "0 from 1234"
    assert scripted.owner == ""


def test_contended_call_raises(scripted: ScriptedBackend) -> None:
    """The error names the semaphore."""
    acquire_lock("1234collectPayment")
    with pytest.raises(LockNotAcquired, match="'1234collectPayment'"):
        collect(1234)


def test_on_conflict_gets_the_calls_arguments(scripted: ScriptedBackend) -> None:
    """Its value is the call's; skip gives None."""

    def busy(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    acquire_lock("report")
    for on_conflict, value in ((busy, ((1,), {"b": 2})), (skip, None)):

        @distributed_lock(lambda a, b: "report", on_conflict=on_conflict)
        def never(a: int, b: int) -> None:
            pytest.fail("ran")

        assert never(1, b=2) == value


def test_failed_call_is_released_and_raises_its_own_error(scripted: ScriptedBackend) -> None:
    """Like a block."""

    @distributed_lock("report")
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert scripted.owner == ""


def test_methods_and_recursion(scripted: ScriptedBackend) -> None:
    """`self` is an argument like others; each call is a separate acquisition."""

    class Customer:
        pk = 1234

        @distributed_lock("<self.pk>:<depth>")
        def collect(self, depth: int) -> int:
            return depth

        @staticmethod
        @distributed_lock("<amount>")
        def charge(amount: int) -> int:
            return amount

    assert Customer().collect(3) == 3
    assert Customer.charge(4) == 4


def test_wrong_template_raises_at_import() -> None:
    """Not at the first call."""
    with pytest.raises(ValueError, match=r"no argument 'custmer_id' .* has: customer_id"):

        @distributed_lock("<custmer_id>collectPayment")
        def collect(customer_id: int) -> None: ...


def test_template_is_refused_in_a_block() -> None:
    """It would be one lock for everybody."""
    for semaphore in ("<customer_id>collectPayment", lambda: "report"):
        with pytest.raises(TypeError, match="Give the semaphore itself"):
            distributed_lock(semaphore).__enter__()
    with pytest.raises(TypeError, match="on_conflict"):
        distributed_lock("report", on_conflict=skip).__enter__()  # type: ignore[misc]


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


async def drained() -> list[int]:
    return [number async for number in async_generator()]


def test_refused_callables_work_without_the_lock() -> None:
    """It is not refused because it is broken."""
    assert asyncio.run(drained()) == list(generator())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (async_generator, "is an async generator"),
        (generator, "is a generator"),
        (ScriptedBackend, "is a class.*method_decorator"),
        (staticmethod(skip), "below @classmethod"),
        pytest.param(classmethod(skip), "below @classmethod", id="classmethod"),
        ("collect", "can't be decorated"),
    ],
)
def test_callables_that_cannot_be_locked_are_refused(function: Any, message: str) -> None:
    """With the reason, when it is decorated."""
    with pytest.raises(TypeError, match=message):
        distributed_lock("report")(function)


def test_blocks_may_be_left_in_another_order() -> None:
    """As by an ExitStack whose callbacks another one has taken over."""
    first, second = (distributed_lock(name, backend="minimal") for name in ("left", "right"))
    leases = [first.__enter__(), second.__enter__()]
    first.__exit__(None, None, None)
    assert [internals(lease).released for lease in leases] == [True, False]
    second.__exit__(None, None, None)
    assert internals(leases[1]).released


def test_http_true_needs_a_request(scripted: ScriptedBackend) -> None:
    """A plain call can't be answered."""
    with pytest.raises(TypeError, match="no HttpRequest"):
        distributed_lock("report", http=True)(lambda: None)()
