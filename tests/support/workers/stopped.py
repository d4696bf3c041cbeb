"""Workers that are stopped or killed while they hold a lock, and one that force-releases it."""

import json
import os
import signal
import sys
from contextlib import suppress
from queue import SimpleQueue
from typing import Any


def hold(backend: str, ttl: str, forks: str = "") -> list[str]:
    """Acquire, print that, and wait to be killed; a forked child, if any, survives."""
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
    """Acquire for a second, wait to be paused, and then try every action of a holder."""
    from django_distlock import Lease, LockBackendUnavailable, LockLost, acquire_lock
    from django_distlock.signals import lock_lost

    reasons: SimpleQueue[str] = SimpleQueue()

    def receive(*, lease: Lease, reason: str, **kwargs: object) -> None:
        reasons.put(reason)

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
    return outcome | {"release": lease.release(), "lost": reasons.get(timeout=60)}


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
