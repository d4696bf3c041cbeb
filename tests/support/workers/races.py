"""Workers that race for locks, and for a file that a lock protects."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any


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
    """Grab keys, then count; return the keys."""
    granted = grab(backend, keys)
    count(backend, path, rounds)
    return granted


def race(backend: str, path: str, rounds: str, keys: str) -> dict[str, list[Any]]:
    """Try for so many fresh keys; then increment the number in a file as often.

    Return the granted keys, and the times and tokens of the lock on the file.
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
    """Do the same though the store fails now and then; return times and tokens."""
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

    Each try begins late in a millisecond, when a clock of milliseconds is most wrong.
    """
    from django.db import connections

    from django_distlock import LockBackendUnavailable, acquire_lock, lock_backends
    from django_distlock.clocks import monotonic

    logging.disable()  # each loss is logged
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


def wait_in_queue(
    backend: str, threads: str, semaphore: str = "1234collectPayment"
) -> list[int | None]:
    """Run so many threads that wait for one lock and hold it for a moment; return the tokens."""
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


def take_turns(backend: str, semaphore: str, number: str) -> list[int]:
    """Acquire one lock so many times, and hold it for a moment; return the tokens."""
    from django_distlock import acquire_lock

    tokens = []
    for _ in range(int(number)):
        lease = acquire_lock(semaphore, timeout=60, backend=backend)
        assert lease is not None
        assert lease.token is not None
        time.sleep(0.001)
        assert lease.release()
        tokens.append(lease.token)
    return tokens
