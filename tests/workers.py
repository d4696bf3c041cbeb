"""What worker processes do in the races: run as `python -m tests.workers <what> <arguments>`.

Each says "ready" and waits for a line on its standard input, so that all start at once.
"""

import faulthandler
import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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


def tokens(backend: str, grants: str) -> list[tuple[int, int]]:
    """Acquire a contended lock so often; return when, by this machine, with which token."""
    from django_distlock import distributed_lock

    seen = []
    for _ in range(int(grants)):
        with distributed_lock("tokens", timeout=60, backend=backend) as lease:
            assert lease.token is not None
            seen.append((time.monotonic_ns(), lease.token))
    return seen


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


def interrupt(backend: str, connections: str, rounds: str) -> dict[str, int]:
    """Take locks in a signal's handler, in the midst of whatever is done with another one.

    Beside that a lease is renewed all the time. What the handler does has to be done so often.
    """
    from django.conf import settings

    from django_distlock import acquire_lock

    if connections:
        settings.DISTLOCK[backend]["OPTIONS"]["connections"] = int(connections)
    done = {"granted": 0, "refused": 0}
    inside = False

    def handle(*_: object) -> None:
        nonlocal inside
        if inside:
            return
        inside = True
        lease = acquire_lock("by the handler", backend=backend, timeout=0.01)
        assert lease is not None
        assert acquire_lock("renewed", backend=backend) is None
        assert lease.release()
        done["granted"] += 1
        inside = False

    faulthandler.dump_traceback_later(50, exit=True)  # rather than to hang
    renewed = acquire_lock("renewed", ttl=1, backend=backend)
    assert renewed is not None
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0037)
    while done["granted"] < int(rounds):
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
    from django_distlock import Lease, LockLost, acquire_lock
    from django_distlock.signals import lock_lost

    told: SimpleQueue[str] = SimpleQueue()

    def receive(*, lease: Lease, reason: str, **kwargs: object) -> None:
        told.put(reason)

    lock_lost.connect(receive)
    lease = acquire_lock("paused", ttl=1, backend=backend)
    assert lease is not None
    print(json.dumps([lease.held]), flush=True)
    sys.stdin.readline()
    outcome: dict[str, object] = {"held": lease.held}
    for action in (lease.check, lease.renew):
        try:
            action()
        except LockLost:
            outcome[action.__name__] = "lost"
    return outcome | {"release": lease.release(), "told": told.get(timeout=60)}


def stop(backend: str, where: str) -> str:
    """Write under a lock, and stop before the "commit", or before the "guard" that precedes it."""
    from django.db import connections, transaction

    from django_distlock import LockLost, distributed_lock
    from tests.app.models import Counter

    def stop_here() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    database: Any = type(connections[backend])
    commit = database._commit

    def stop_and_commit(connection: Any) -> None:
        stop_here()
        commit(connection)

    outcome = "lost"
    with suppress(LockLost), distributed_lock("stopped", backend=backend, ttl=1):
        with transaction.atomic(using=backend):
            Counter.objects.using(backend).create()
            if where == "guard":
                stop_here()
            database._commit = stop_and_commit
        outcome = "committed"
    return outcome


def write_late(backend: str, ttl: str) -> str:
    """Write an invoice under its lock, and stop between the last check and the UPDATE."""
    from django.db import connections

    from django_distlock import LockLost
    from tests.app.models import Invoice
    from tests.others import holding

    def stop_before_update(execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.startswith("UPDATE"):
            os.kill(os.getpid(), signal.SIGSTOP)
        return execute(sql, *arguments)

    invoice = Invoice.objects.using(backend).get()
    with holding(backend, f"{invoice.customer_id}collectPayment", ttl=float(ttl)) as lease:
        lease.check()
        outcome = ""
        with connections[backend].execute_wrapper(stop_before_update):
            try:
                invoice.save(lease=lease)
            except LockLost as error:
                outcome = str(error)
    return outcome


def visit(path: str, requests: str) -> list[int]:
    """Send so many requests to a view under ATOMIC_REQUESTS; return their statuses."""
    from django.test import Client

    client = Client()
    return [client.get(path).status_code for _ in range(int(requests))]


def stand_in_line(backend: str, threads: str) -> list[int | None]:
    """Let so many threads wait for one lock, which each holds for a moment; return the tokens."""
    from django.db import connections

    from django_distlock import distributed_lock

    def wait(_: int) -> int | None:
        try:
            with distributed_lock("a", timeout=60, backend=backend) as lease:
                return lease.token
        finally:
            connections.close_all()

    with ThreadPoolExecutor(int(threads)) as pool:
        return [*pool.map(wait, range(int(threads)))]


def main() -> None:
    """Get ready, wait for the start, and print what came out of it."""
    what, *arguments = sys.argv[1:]
    django.setup()
    if "DISTLOCK_TEST_LASTING_OFFERS" in os.environ:
        from tests.redis_locks import let_offers_last

        let_offers_last()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(globals()[what](*arguments)), flush=True)


if __name__ == "__main__":
    main()
