"""The owner, by which a lock can be released, is in no variable that a traceback leads to.

Error trackers store the variables of all frames; a driver's frame has the statement it sends.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from django.db import transaction

from django_distlock import LockBackendUnavailable, aacquire_lock, acquire_lock, distributed_lock
from tests.app.models import Counter
from tests.support.concurrency import Interrupted, elsewhere
from tests.support.databases import committed, on_each_server
from tests.support.holders import acquire
from tests.support.known_owners import Interrupter, known_owner, shown_by

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = committed

STORES = ["default", "memory"] + [
    pytest.param(name, marks=pytest.mark.needs(name))
    for name in ("postgresql", "mariadb", "redis", "lock_server", "memcached")
]
ASYNC_STORES = [
    pytest.param(name, marks=pytest.mark.needs(name)) for name in ("redis", "lock_server")
]


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
