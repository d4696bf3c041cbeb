"""A worker that holds a lock until an operator takes it away."""

import os
import time


def hold_until_lost(backend: str, semaphore: str, label: str) -> list[str]:
    """Renew the lock all the time; return how the process learned that it lost it."""
    from django_distlock import LockLost, acquire_lock

    lease = acquire_lock(semaphore, backend=backend, label=label)
    assert lease is not None
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        try:
            lease.renew()
        except LockLost as error:
            return [str(os.getpid()), str(error)]
        time.sleep(0.02)
    return []
