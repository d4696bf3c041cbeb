"""How long a call to Redis may take."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    clocks,
    distributed_lock,
)
from django_distlock.backends.sockets.turns import AT_ONCE
from django_distlock.signals import lock_acquired
from tests.support.concurrency import run, until
from tests.support.holders import acquire
from tests.support.lossy_proxy import LossyProxy, chunks
from tests.support.redis_servers import (
    place,
)
from tests.support.redis_stores import (
    ALIAS,
    DJANGO_REDIS,
    is_locked,
    locks_at,
    locks_of,
    on_each_library,
    why_not,
)

if TYPE_CHECKING:
    import socket

    from django_distlock import Lease
    from tests.support.moved_clock import MovedClock
    from tests.support.servers import Server


pytestmark = [pytest.mark.needs("redis"), pytest.mark.once]


# Time


@on_each_library
def test_server_that_answers_nothing_is_unavailable_in_time(
    redis_server: Server, library: str
) -> None:
    """Even if the cache itself would wait for ever. What the server does later leaves no lock."""
    options = {"SOCKET_TIMEOUT": None} if library == DJANGO_REDIS else {"socket_timeout": None}
    with locks_of(redis_server, library=library, options=options):
        lease = acquire(ALIAS, "mine")
    hasty = {"store_timeout": 0.3}
    with locks_of(redis_server, library=library, options=options, store=hasty) as store:
        until(lambda: not why_not("9012collectPayment"))
        with redis_server.paused():
            for action in (  # by a warm connection, and then by new ones
                lambda: acquire_lock("1234collectPayment", backend=ALIAS),
                lambda: acquire_lock("5678collectPayment", backend=ALIAS),
                lambda: [*store.held()],
                lambda: store.force_release("mine", 1),
                lease.renew,
                lease.release,
            ):
                before = clocks.monotonic()
                with pytest.raises(LockBackendUnavailable):
                    action()
                assert clocks.monotonic() - before < 10
    with locks_of(redis_server):
        assert acquire(ALIAS, "9012collectPayment").release()
        until(lambda: not any(is_locked(redis_server, semaphore) for semaphore in "ab"))
        assert acquire(ALIAS, "1234collectPayment").release()


class AgingProxy(LossyProxy):
    """A proxy that advances the clock before it passes an answer on; at most so many."""

    def __init__(self, server: Server, clock: MovedClock, *, seconds: float, answers: int) -> None:
        super().__init__(*place(server))
        self.clock = clock
        self.seconds = seconds
        self.answers = answers

    def _pass_on(self, client: socket.socket, server: socket.socket, reset: int | None) -> None:
        for source, data in chunks(client, server):
            if source is client:
                server.sendall(data)
            elif self.answers:
                self.answers -= 1
                self.clock.advance(self.seconds)
                client.sendall(data)


def test_slow_connection_takes_no_longer_than_the_budget(
    redis_server: Server, moved_clock: MovedClock
) -> None:
    """Even if each of its steps is in time: after the first one little is left."""
    with AgingProxy(redis_server, moved_clock, seconds=59.5, answers=1) as proxy:
        with locks_at(proxy.port, store={"store_timeout": 60}):
            before = time.monotonic()
            # "timed out" while the script runs: an older redis-py has fewer steps before that.
            with pytest.raises(LockBackendUnavailable, match=r"no answer in 60 seconds|timed out"):
                acquire_lock("1234collectPayment", backend=ALIAS)
            assert time.monotonic() - before < 30
            assert proxy.answers == 0


def test_tasks_do_not_take_each_other_for_a_dead_server(
    redis_server: Server, moved_clock: MovedClock
) -> None:
    """Even if most of them queue for longer than the server may take for each."""

    async def hold(number: int, seconds: float) -> bool:
        block = distributed_lock(str(number), backend=ALIAS, ttl=None, renew=False)
        async with block as lease:
            moved_clock.advance(seconds)
            return lease.held

    async def hold_all() -> list[bool]:
        # Connect first: a thread that connects may be slower than many tasks.
        await asyncio.gather(*(hold(number, 0) for number in range(AT_ONCE)))
        return await asyncio.gather(*(hold(number, 1) for number in range(200)))

    with locks_of(redis_server, store={"store_timeout": 60}):
        assert all(run(hold_all()))


def test_queued_tasks_learn_of_a_dead_server_in_time(redis_server: Server) -> None:
    """All of them, though only some have asked it: one by one they would take 15 seconds."""

    async def acquire_all() -> list[Lease | BaseException | None]:
        tries = (aacquire_lock(str(number), backend=ALIAS) for number in range(400))
        return await asyncio.gather(*tries, return_exceptions=True)

    with locks_of(redis_server, store={"store_timeout": 0.3}):
        until(lambda: not why_not("1234collectPayment"))
        with redis_server.paused():
            before = clocks.monotonic()
            answers = run(acquire_all())
            assert clocks.monotonic() - before < 10
    assert {type(answer) for answer in answers} == {LockBackendUnavailable}


def test_receiver_of_a_signal_has_a_time_of_its_own(
    redis_server: Server, moved_clock: MovedClock
) -> None:
    """However long it takes, and whatever it asks the store."""
    acquired: list[Lease] = []

    def audit(*, lease: Lease, **kwargs: Any) -> None:
        if lease.semaphore == "1234collectPayment":
            moved_clock.advance(21)
            acquired.append(acquire(ALIAS, "audit"))

    lock_acquired.connect(audit)
    try:
        with locks_of(redis_server, store={"store_timeout": 20}):
            lease = acquire(ALIAS)
            assert [each.release() for each in (*acquired, lease)] == [True, True]
    finally:
        lock_acquired.disconnect(audit)
