"""Workers that a signal interrupts while they use a lock."""

import faulthandler
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress


def interrupt(backend: str, connections: str, rounds: str) -> dict[str, int]:
    """Take locks in a signal handler, at any step of the use of another one.

    A lease is renewed in parallel all the time. The handler has to succeed so many times.
    """
    from django.conf import settings

    from django_distlock import LockBackendUnavailable, acquire_lock
    from tests.support.holders import acquire, due_now

    if connections:
        settings.DISTLOCK[backend]["OPTIONS"]["connections"] = int(connections)
    done = {"granted": 0, "refused": 0}
    inside = False

    def take_locks() -> None:
        lease = acquire_lock("by the handler", backend=backend, timeout=0.01)
        assert lease is not None
        assert acquire_lock("renewed", backend=backend) is None
        assert lease.release()
        done["granted"] += 1

    def handle(*_: object) -> None:
        nonlocal inside
        if inside:
            return
        inside = True
        # During a read, SQLite refuses to write at all if another connection has written since.
        with suppress(*[LockBackendUnavailable] if backend == "default" else []):
            take_locks()
        inside = False

    faulthandler.dump_traceback_later(120, exit=True)  # rather than hang
    renewed = acquire(backend, "renewed")
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0037)
    while done["granted"] < int(rounds):
        due_now([renewed])
        lease = acquire_lock("interrupted", backend=backend)
        assert lease is not None
        assert acquire_lock("interrupted", backend=backend) is None
        done["refused"] += 1
        assert lease.release()
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()
    assert renewed.release()
    return done


def interrupt_blocks(backend: str, interruptions: str, ttl: str) -> list[str]:
    """Interrupt so many blocks, each at a random moment, while another lease is renewed.

    Return which locks are not free for others though their ttl has long passed.
    """
    from django.db import connections

    from django_distlock import LockBackendUnavailable, LockLost, distributed_lock
    from tests.support.concurrency import Interrupted
    from tests.support.holders import acquire, due_now

    def raise_interrupted(*args: object) -> None:
        raise Interrupted

    def hold(name: str) -> float:
        before = time.monotonic()
        with suppress(LockBackendUnavailable, LockLost):  # it took longer than its ttl
            with distributed_lock(name, ttl=float(ttl), backend=backend):
                pass
        return time.monotonic() - before

    signal.signal(signal.SIGALRM, raise_interrupted)
    other = acquire(backend, "renewed in parallel")
    usual = sorted(hold(f"warm-up {number}") for number in range(20))[10]
    held: list[str] = []
    number = 0
    while len(held) < int(interruptions):
        due_now([other])
        number += 1
        name = f"block {number}"
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1.1 * usual))
            hold(name)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            held.append(name)
    other.check()
    with ThreadPoolExecutor(1) as pool:  # another thread: it owns none of these
        give_up = time.monotonic() + 60
        while held and time.monotonic() < give_up:
            held = [*pool.map(lambda name: hold_or_name(name, backend), held)]
            held = [name for name in held if name]
            time.sleep(0.1 if held else 0)
        pool.submit(connections.close_all).result()
    other.release()
    return held


def hold_or_name(name: str, backend: str) -> str:
    """Return the name of the lock if it can't be acquired."""
    from django_distlock import acquire_lock

    lease = acquire_lock(name, backend=backend)
    if lease is None:
        return name
    lease.release()
    return ""
