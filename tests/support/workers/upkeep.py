"""Workers that renew or purge locks until a line stops them."""

import os
import sys
import threading
from datetime import timedelta


def renew_on(backend: str, locks: str) -> list[int]:
    """Hold so many locks and renew them without a pause, until stopped; count the failures."""
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
    """Release locks and purge them without a pause, until stopped."""
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
    """Return an event that is set when a line arrives on the standard input."""
    stopped = threading.Event()

    def listen() -> None:
        sys.stdin.readline()
        stopped.set()

    threading.Thread(target=listen, daemon=True).start()
    return stopped
