"""`no_lock_held_after_test`: locks that a test leaves held, and where they were acquired."""

from __future__ import annotations

import asyncio
import gc
import unittest
import warnings
from functools import partial
from inspect import currentframe, getsourcelines
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.core.signals import request_finished, request_started
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    lock_backends,
)
from django_distlock.test import no_lock_held_after_test, source_lines
from tests.support.concurrency import elsewhere
from tests.support.databases import committed

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

FILE = "tests/test_kit/test_leaks.py"
pytestmark = [pytest.mark.once, pytest.mark.usefixtures("in_memory")]


def this_line() -> int:
    """Return the number of the caller's line."""
    frame = currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def leak(semaphore: str = "1234collectPayment", **options: Any) -> Lease:
    """Acquire a lock, and don't release it."""
    lease = acquire_lock(semaphore, **options)
    assert lease is not None
    return lease


def is_free(semaphore: str = "1234collectPayment", backend: str = "default") -> bool:
    """Tell whether another thread gets the lock."""
    lease = elsewhere(lambda: acquire_lock(semaphore, backend=backend))
    return lease is not None and lease.release()


LEAK_LINE = getsourcelines(leak)[1] + 2
LEAKED_HERE = f"acquired at {FILE}:{LEAK_LINE}, in leak"


def test_leak_fails_with_the_line_that_acquired_it_and_is_released() -> None:
    """The next test finds the lock free; the lease knows it."""
    with pytest.raises(AssertionError) as raised:
        with no_lock_held_after_test():
            lease = leak()
            leak("5678collectPayment", backend="other", reentrant=True)
            leak("5678collectPayment", backend="other", reentrant=True)
    assert str(raised.value).splitlines() == [
        "2 locks were still held after the test:",
        f"  '1234collectPayment' (default): {LEAKED_HERE}",
        f"  '5678collectPayment' (other): {LEAKED_HERE}",
    ]
    assert not lease.held
    assert is_free()
    assert is_free("5678collectPayment", backend="other")


def test_what_is_released_in_time_or_was_held_before_is_no_leak() -> None:
    """Nor is what expired, was lost, or was released by another thread."""
    before = leak("before")
    with no_lock_held_after_test():
        with distributed_lock("1234collectPayment"):
            pass
        elsewhere(leak("passed on").release)
        expired = leak("expired", ttl=0.05, renew=False)
        lost = leak("lost")
        assert lost.token is not None
        lock_backends["default"].force_release("lost", lost.token)
        while expired.remaining:
            pass
    assert before.held
    assert before.release()


def test_leak_of_another_thread_and_of_a_lease_without_reference_count() -> None:
    """They are still held in the store."""
    with pytest.raises(AssertionError) as raised, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with no_lock_held_after_test():
            elsewhere(leak)
            block = distributed_lock("5678collectPayment").__enter__()
            line = this_line() - 1
            del block
            gc.collect()
    assert f"'1234collectPayment' (default): {LEAKED_HERE}" in str(raised.value)
    assert f"'5678collectPayment' (default): acquired at {FILE}:{line}" in str(raised.value)
    assert is_free()
    assert is_free("5678collectPayment")


@pytest.mark.parametrize(
    "path", ["django_distlock.backends.memory.Memory", "tests.app.backends.Minimal"]
)
def test_async_code_is_found_where_it_acquires(path: str, settings: Any) -> None:
    """Not in the thread that calls the store, nor in asyncio."""
    settings.DISTLOCK = {"default": {"BACKEND": f"{path}Backend"}}

    @no_lock_held_after_test()
    async def decorated() -> None:
        await asyncio.create_task(nested())

    async def nested() -> None:
        lease = await aacquire_lock("1234collectPayment")
        assert lease is not None
        found.append((lease, this_line() - 2))

    found: list[tuple[Lease, int]] = []
    with pytest.raises(AssertionError) as raised:
        asyncio.run(decorated())
    [(lease, line)] = found
    assert f"acquired at {FILE}:{line}, in test_async_code" in str(raised.value)
    assert not lease.held


def test_error_of_the_test_itself_wins() -> None:
    """The leak is a note to it."""
    with pytest.raises(ZeroDivisionError) as raised, no_lock_held_after_test():
        leak()
        1 / 0  # noqa: B018
    assert LEAKED_HERE in raised.value.__notes__[0]
    assert is_free()


def test_decorated_function_is_found_itself() -> None:
    """Its caller may be Django, or asyncio."""

    @distributed_lock("<customer_id>collectPayment")
    def collect(customer_id: int) -> str:
        return watching.finish()

    @distributed_lock("<customer_id>collectPayment")
    async def acollect(customer_id: int) -> str:
        return watching.finish()

    watching = no_lock_held_after_test()
    watching.enable()
    problem = collect(1234)
    watching.enable()
    later = asyncio.run(acollect(1234))
    line, within = this_line() - 13, "test_decorated_function_is_found_itself.<locals>"
    assert f"acquired at {FILE}:{line}, in {within}.collect" in problem
    assert f"acquired at {FILE}:{line + 4}, in {within}.acollect" in later


def test_code_of_libraries_is_not_shown() -> None:
    """A decorated method may be Django's own, and a decorated callable may have no code."""

    @method_decorator(distributed_lock("1234collectPayment"), name="dispatch")
    class Collect(View):
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse(watching.finish())

    watching = no_lock_held_after_test()
    watching.enable()
    problem = Collect.as_view()(RequestFactory().get("/")).getvalue().decode()
    assert f"acquired at {FILE}:{this_line() - 1}, in test_code_of_lib" in problem
    watching.enable()
    problem = distributed_lock("1234collectPayment")(partial(watching.finish))()
    assert f"acquired at {FILE}:{this_line() - 1}, in test_code_of_lib" in problem
    with mock.patch.object(source_lines, "LIBRARIES", ("",)):  # there is no other code
        line = source_lines.SourceLine.of_call()
    assert line.function == "test_code_of_libraries_is_not_shown"
    with mock.patch.object(source_lines, "currentframe", return_value=None):
        assert source_lines.SourceLine.of_call() == source_lines.UNKNOWN


@committed
def test_release_that_waits_for_a_transaction_is_no_leak() -> None:
    """Its holder released it."""
    with transaction.atomic(using="locks"):
        with no_lock_held_after_test(), distributed_lock("1234collectPayment"):
            pass
        assert not is_free()
    assert is_free()


def test_what_ended_with_a_request_is_no_leak() -> None:
    """A ResourceWarning tells of it."""

    def request() -> None:
        request_started.send(sender=None)
        leak()
        request_finished.send(sender=None)

    with no_lock_held_after_test(), pytest.warns(ResourceWarning, match="not released by a req"):
        request()


def test_failed_release_is_no_leak(scripted: ScriptedBackend) -> None:
    """The holder did what it could. It is released now."""
    with no_lock_held_after_test():
        lease = leak()
        scripted.answer("release", LockBackendUnavailable("down"))
        with pytest.raises(LockBackendUnavailable):
            lease.release()
    assert not lease.held
    with pytest.raises(AssertionError, match="still held"), no_lock_held_after_test():
        leak()
        scripted.answer("release", LockBackendUnavailable("down"))


def test_it_decorates_a_test_case() -> None:
    """Each test that leaks fails."""

    @no_lock_held_after_test()
    class Tests(unittest.TestCase):
        def test_leak(self) -> None:
            leak()

        def test_release(self) -> None:
            with distributed_lock("1234collectPayment"):
                pass

    result = unittest.TestResult()
    Tests("test_leak").run(result)
    Tests("test_release").run(result)
    [[test, traceback]] = result.failures
    assert test.id().endswith("test_leak")
    assert LEAKED_HERE in traceback
