"""What worker processes do in the races: `python -m tests.support.workers <what> <arguments>`.

Each says "ready" and waits for a line on its standard input, so that all start at once.
"""

import faulthandler
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import django


def count(backend: str, path: str, rounds: str) -> list[int]:
    """Increment the number in an unguarded file, under the lock."""
    from django_distlock import distributed_lock

    for _ in range(int(rounds)):
        with distributed_lock("counter", timeout=60, backend=backend):
            number = int(Path(path).read_text())
            Path(path).write_text(str(number + 1))
    return []


def grab(backend: str, keys: str) -> list[str]:
    """Try once for each of so many fresh keys; return those that were granted."""
    from django_distlock import acquire_lock

    names = [f"fresh {number}" for number in range(int(keys))]
    return [name for name in names if acquire_lock(name, backend=backend)]


def grab_and_count(backend: str, keys: str, path: str, rounds: str) -> list[str]:
    """Do both, one after the other; return the keys."""
    granted = grab(backend, keys)
    count(backend, path, rounds)
    return granted


def race(backend: str, path: str, rounds: str, keys: str) -> dict[str, list[Any]]:
    """Try for so many fresh keys; then increment the number in a file, as often as that.

    Return which were granted, and when the lock on the file was, with which tokens.
    """
    from django_distlock import distributed_lock

    granted, seen = grab(backend, keys), []
    for _ in range(int(rounds)):
        with distributed_lock("counter", timeout=60, backend=backend) as lease:
            number = int(Path(path).read_text())
            Path(path).write_text(str(number + 1))
            seen.append((time.monotonic_ns(), lease.token))
    return {"granted": granted, "seen": seen}


def count_anyway(backend: str, path: str, rounds: str, ttl: str) -> list[tuple[int, int]]:
    """Do the same though the store fails now and then; return when, with which tokens."""
    from django_distlock import LockBackendUnavailable, distributed_lock

    seen: list[tuple[int, int]] = []
    while len(seen) < int(rounds):
        try:
            with distributed_lock("counter", timeout=60, ttl=float(ttl), backend=backend) as lease:
                number = int(Path(path).read_text())
                time.sleep(0.001)
                Path(path).write_text(str(number + 1))
                assert lease.token is not None
                seen.append((time.monotonic_ns(), lease.token))
        except LockBackendUnavailable:
            time.sleep(0.05)
    return seen


def let_expire(backend: str, ttl: str, grants: str) -> list[tuple[float, float]]:
    """Acquire so often, and never release; return from when and until when each lease was held.

    Each try begins late in a millisecond, which is when a clock that counts these is most wrong.
    """
    from django.db import connections

    from django_distlock import LockBackendUnavailable, acquire_lock, lock_backends
    from django_distlock.clocks import monotonic

    logging.disable()  # of each lease it is said that it was lost
    using = getattr(lock_backends[backend], "using", None)
    if using and connections[using].vendor == "sqlite":
        with connections[using].cursor() as cursor:  # the disk would be slower than the clock
            cursor.execute("PRAGMA synchronous = OFF")
    holds: list[tuple[float, float]] = []
    give_up = monotonic() + 60
    while len(holds) < int(grants) and monotonic() < give_up:
        while time.time_ns() % 1_000_000 < 700_000:
            pass
        lease = None
        with suppress(LockBackendUnavailable):  # it took longer than the ttl
            lease = acquire_lock("expiring", ttl=float(ttl), renew=False, backend=backend)
        begin = end = now = monotonic()
        while lease is not None and lease.held:
            end, now = now, monotonic()
        if end > begin:
            holds.append((begin, end))
    return holds


def interrupt(backend: str, connections: str, rounds: str) -> dict[str, int]:
    """Take locks in a signal's handler, in the midst of whatever is done with another one.

    Beside that a lease is renewed all the time. What the handler does has to be done so often.
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
        # In the midst of a read, SQLite refuses to write at all if somebody else has meanwhile.
        with suppress(*[LockBackendUnavailable] if backend == "default" else []):
            take_locks()
        inside = False

    faulthandler.dump_traceback_later(120, exit=True)  # rather than to hang
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


def hold(backend: str, ttl: str, forks: str = "") -> list[str]:
    """Acquire, say so, and wait to be killed; a forked child, if there is one, lives on."""
    from django_distlock import acquire_lock

    lease = acquire_lock("held", ttl=float(ttl), backend=backend)
    assert lease is not None
    if forks and not os.fork():
        sys.stdin.readline()
        os._exit(0)
    print(json.dumps([lease.token]), flush=True)
    sys.stdin.readline()
    return []


def pause(backend: str) -> dict[str, object]:
    """Acquire for a second, let oneself be paused, and then try everything a holder can do."""
    from django_distlock import Lease, LockBackendUnavailable, LockLost, acquire_lock
    from django_distlock.signals import lock_lost

    told: SimpleQueue[str] = SimpleQueue()

    def receive(*, lease: Lease, reason: str, **kwargs: object) -> None:
        told.put(reason)

    lock_lost.connect(receive)
    lease = None
    while lease is None:
        with suppress(LockBackendUnavailable):  # it took longer than the ttl
            lease = acquire_lock("paused", ttl=1, backend=backend)
    print("acquired", flush=True)
    sys.stdin.readline()
    outcome: dict[str, object] = {"held": lease.held}
    for action in (lease.check, lease.renew):
        try:
            action()
        except LockLost:
            outcome[action.__name__] = "lost"
    return outcome | {"release": lease.release(), "told": told.get(timeout=60)}


def stop(backend: str, where: str, ttl: str) -> str:
    """Write under a lock, and stop before the "commit", or before the "guard" that precedes it.

    A try that ends before it has stopped, since this took longer than the ttl, is made again.
    """
    from django.db import connections, transaction

    from django_distlock import LockBackendUnavailable, LockLost, distributed_lock
    from tests.app.models import Counter

    connection = connections[backend]
    commit = connection.commit
    has_stopped = False

    def stop_here() -> None:
        nonlocal has_stopped
        has_stopped = True
        os.kill(os.getpid(), signal.SIGSTOP)

    def stop_and_commit() -> None:
        if where == "commit" and not has_stopped:
            stop_here()
        commit()

    vars(connection)["commit"] = stop_and_commit  # before it connects: so the guard comes first
    outcome = "lost"
    while not has_stopped:
        with (
            suppress(LockLost, LockBackendUnavailable),
            distributed_lock("stopped", backend=backend, ttl=float(ttl)),
        ):
            with transaction.atomic(using=backend):
                Counter.objects.using(backend).create()
                if where == "guard":
                    stop_here()
            outcome = "committed"
    return outcome


def write_late(backend: str, ttl: str) -> str:
    """Write an invoice under its lock, and stop between the last check and the UPDATE.

    A try that ends before it has stopped, since this took longer than the ttl, is made again.
    """
    from django.db import connections

    from django_distlock import LockBackendUnavailable, LockLost
    from tests.app.models import Invoice
    from tests.support.holders import holding

    has_stopped = False

    def stop_before_update(execute: Any, sql: str, *arguments: Any) -> Any:
        nonlocal has_stopped
        if sql.startswith("UPDATE"):
            has_stopped = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return execute(sql, *arguments)

    invoice = Invoice.objects.using(backend).get()
    semaphore, outcome = f"{invoice.customer_id}collectPayment", ""
    while not has_stopped:
        try:
            with (
                holding(backend, semaphore, ttl=float(ttl)) as lease,
                connections[backend].execute_wrapper(stop_before_update),
            ):
                lease.check()
                invoice.save(lease=lease)
        except (LockLost, LockBackendUnavailable) as error:
            outcome = str(error)
    return outcome


def force_release(backend: str, semaphore: str, token: str) -> bool:
    """Take the lock from its holder, as an operator does."""
    from django_distlock import lock_backends

    return lock_backends[backend].force_release(semaphore, int(token))


def visit(path: str, requests: str) -> list[int]:
    """Send so many requests to a view under ATOMIC_REQUESTS; return their statuses."""
    from django.test import Client

    client = Client()
    return [client.get(path).status_code for _ in range(int(requests))]


def visit_each(paths: str, requests: str) -> list[int]:
    """Send so many requests to each of these views, and print their statuses.

    Begin with the next one when told to, as all do.
    """
    for path in paths.split():
        print(json.dumps(visit(path, requests)), flush=True)
        sys.stdin.readline()
    return []


def pause_request(path: str) -> int:
    """Send a request, pause it when its view has read, and return the status."""
    from django.test import Client

    from tests.app.views import has_read

    def pause(**kwargs: object) -> None:
        print(json.dumps("read"), flush=True)
        sys.stdin.readline()

    has_read.connect(pause)
    return Client(raise_request_exception=False).get(path).status_code


def visit_when_told(*paths: str) -> None:
    """Send a request to one view after the other, each when told to; print their statuses."""
    from django.test import Client

    client = Client()
    for path in paths:
        sys.stdin.readline()
        print(json.dumps(client.get(path).status_code), flush=True)


def renew_on(backend: str, locks: str) -> list[int]:
    """Hold so many locks and renew them without a pause, until told to stop; count what failed."""
    from django_distlock import lock_backends
    from tests.support.holders import acquire

    store = lock_backends[backend]
    leases = [acquire(backend, f"{os.getpid()} {number}") for number in range(int(locks))]
    stopped = _stop_when_told()
    failed = 0
    while not stopped.is_set():
        renewals = store.renew(leases)
        failed += sum(not renewals[lease.owner].renewed for lease in leases)
    for lease in leases:
        lease.release()
    return [failed]


def purge_on(backend: str) -> list[int]:
    """Release locks and purge them without a pause, until told to stop."""
    from django_distlock import lock_backends
    from tests.support.holders import acquire

    store = lock_backends[backend]
    stopped = _stop_when_told()
    purged = 0
    while not stopped.is_set():
        for number in range(10):
            acquire(backend, f"purged {os.getpid()} {number}").release()
        purged += len([*store.purge_released(timedelta(0))])
    return [purged]


def _stop_when_told() -> threading.Event:
    """Return what is set when a line comes on the standard input."""
    stopped = threading.Event()

    def listen() -> None:
        sys.stdin.readline()
        stopped.set()

    threading.Thread(target=listen, daemon=True).start()
    return stopped


def stand_in_line(
    backend: str, threads: str, semaphore: str = "1234collectPayment"
) -> list[int | None]:
    """Let so many threads wait for one lock, which each holds for a moment; return the tokens."""
    from django.db import connections

    from django_distlock import distributed_lock

    def wait(_: int) -> int | None:
        try:
            with distributed_lock(semaphore, timeout=60, backend=backend) as lease:
                return lease.token
        finally:
            connections.close_all()

    with ThreadPoolExecutor(int(threads)) as pool:
        return [*pool.map(wait, range(int(threads)))]


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
    other = acquire(backend, "renewed meanwhile")
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
    with ThreadPoolExecutor(1) as pool:  # another thread: none of these is its own
        give_up = time.monotonic() + 60
        while held and time.monotonic() < give_up:
            held = [*pool.map(lambda name: hold_or_name(name, backend), held)]
            held = [name for name in held if name]
            time.sleep(0.1 if held else 0)
        pool.submit(connections.close_all).result()
    other.release()
    return held


def hold_or_name(name: str, backend: str) -> str:
    """Return the name of a lock that can't be had."""
    from django_distlock import acquire_lock

    lease = acquire_lock(name, backend=backend)
    if lease is None:
        return name
    lease.release()
    return ""


def main() -> None:
    """Get ready, wait for the start, and print what came out of it."""
    what, *arguments = sys.argv[1:]
    django.setup()
    if "DISTLOCK_TEST_LASTING_OFFERS" in os.environ:
        from tests.support import postgresql_waiters, redis_stores

        postgresql_waiters.let_offers_last()
        redis_stores.let_offers_last()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(globals()[what](*arguments)), flush=True)
    sys.stdin.readline()  # until all are done: what is left behind is released when a process ends


if __name__ == "__main__":
    main()
