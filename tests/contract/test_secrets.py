"""The owner, by which a lock can be released, is in no variable that a traceback leads to.

Error trackers store the variables of all frames; a driver's frame has the statement it sends.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import transaction

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock, distributed_lock
from django_distlock.records import Owner
from tests.app.models import Counter
from tests.support.concurrency import Interrupted, elsewhere
from tests.support.databases import committed, on_each_server
from tests.support.holders import acquire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

pytestmark = committed

SECRET = secrets.token_hex(16)
"""An owner; a global, since what is local to the functions here is looked through, too."""

STORES = ["default", "memory"] + [
    pytest.param(name, marks=pytest.mark.needs(name))
    for name in ("postgresql", "mariadb", "redis", "lock_server", "memcached")
]
ASYNC_STORES = [
    pytest.param(name, marks=pytest.mark.needs(name)) for name in ("redis", "lock_server")
]


class Interrupter:
    """Raises at the n-th line, in any code, at which a local variable shows the secret."""

    def __init__(self, number: int, kind: type[BaseException]) -> None:
        self.left = number
        self.kind = kind
        self.has_raised = False

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Raise in this block, once."""
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not self.has_raised and event == "line" and shows(frame):
            if not self.left:
                self.has_raised = True
                raise self.kind
            self.left -= 1
        return self._trace


def shows(frame: FrameType) -> bool:
    """Return whether the repr of one of the frame's variables has the secret."""
    values = [each for each in frame.f_locals.values() if type(each) in SHOWN]
    with suppress(Exception):  # of an object that isn't complete yet
        return SECRET in repr(values)
    return False


SHOWN = {str, bytes, bytearray, list, tuple, dict}


def shown_by(error: BaseException) -> list[str]:
    """Return the functions with the secret, of all tracebacks that the error leads to."""
    found, errors, seen = [], [error], set()
    while errors:
        each = errors.pop()
        seen.add(id(each))
        traceback = each.__traceback__
        while traceback is not None:
            if shows(traceback.tb_frame):
                found.append(traceback.tb_frame.f_code.co_qualname)
            traceback = traceback.tb_next
        linked = (each.__cause__, each.__context__, *getattr(each, "exceptions", ()))
        errors += [one for one in linked if one is not None and id(one) not in seen]
    return found


def known_owner() -> Owner:
    """Return the secret."""
    return Owner(SECRET)


def interrupt_wherever_shown(
    action: Callable[[], object],
    kind: type[BaseException] = Interrupted,
    most: int = 1_000,
) -> int:
    """Interrupt the action at each line where a variable shows the secret; return how many.

    At most so many, beginning with the first one. Fail if the error that reaches the caller shows
    the secret.
    """
    number = 0
    while number < most:
        interrupter = Interrupter(number, kind)
        try:
            with mock.patch("django_distlock.locks.acquisition.new_owner", known_owner):
                with interrupter.armed():
                    action()
        except (kind, LockBackendUnavailable) as error:
            assert shown_by(error) == []  # noqa: PT017 - what is raised is the point
        if not interrupter.has_raised:
            break
        number += 1
    return number


@pytest.mark.parametrize("kind", [Interrupted, ConnectionResetError])
@pytest.mark.parametrize("alias", STORES)
def test_interruption_or_failure_shows_no_owner(alias: str, kind: type[BaseException]) -> None:
    """Ctrl-C, a soft time limit, a worker's timeout, or an error, anywhere in a driver."""

    def hold() -> None:
        lease = acquire_lock("1234collectPayment", backend=alias)
        if lease is not None:
            lease.renew()
            lease.release()

    assert interrupt_wherever_shown(hold, kind) or alias == "memory"


@pytest.mark.parametrize("alias", STORES)
def test_interruption_of_a_waiter_shows_no_owner(alias: str) -> None:
    """A waiter that joins a queue, and leaves it."""
    lease = elsewhere(lambda: acquire(alias))

    def wait() -> None:
        with suppress(LockBackendUnavailable):
            acquire_lock("1234collectPayment", backend=alias, timeout=0.01)

    interrupt_wherever_shown(wait, most=1)  # a missed notification would be waited for
    assert lease.release()


@on_each_server
def test_interruption_of_the_guard_shows_no_owner(alias: str) -> None:
    """Before a commit, on the user's connection."""

    def commit() -> None:
        with distributed_lock("1234collectPayment", backend=alias), transaction.atomic(using=alias):
            Counter.objects.using(alias).create()

    assert (
        interrupt_wherever_shown(commit) or alias == "postgresql"
    )  # psycopg's part of that is written in C


@pytest.mark.parametrize("alias", ASYNC_STORES)
def test_interruption_of_an_event_loop_shows_no_owner(alias: str) -> None:
    """Like that of a thread."""

    async def hold() -> None:
        with suppress(LockBackendUnavailable):
            lease = await aacquire_lock("1234collectPayment", backend=alias)
            if lease is not None:
                await lease.arelease()

    assert interrupt_wherever_shown(lambda: asyncio.run(hold()))
