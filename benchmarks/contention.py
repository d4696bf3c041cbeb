"""3,600 contended iterations by 12 threads: what reaches the caller, and what the server counts.

python -m benchmarks.contention --database mariadb
"""

import argparse
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from benchmarks.stores import STARTERS, django_on

THREADS, ITERATIONS, SEMAPHORES = 12, 300, 3
DEADLOCKS = {
    "postgresql": "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    "mariadb": "SELECT variable_value FROM information_schema.global_status "
    "WHERE variable_name = 'Innodb_deadlocks'",
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=list(STARTERS), default="mariadb")
    options = parser.parse_args()
    with django_on(options.database):
        from django.db import connection

        start = Barrier(THREADS)
        begun = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as threads:
            done = [threads.submit(contend, start) for _ in range(THREADS)]
        seconds = time.perf_counter() - begun
        outcomes: Counter[str] = Counter()
        for future in done:
            outcomes.update(future.result())
        with connection.cursor() as cursor:
            cursor.execute(DEADLOCKS[options.database])
            (deadlocks,) = cursor.fetchone()
    print(
        f"{options.database}: {THREADS * ITERATIONS} iterations in {seconds:.1f} s: "
        f"{dict(outcomes)}; deadlocks on the server: {deadlocks}"
    )


def contend(start: Barrier) -> Counter[str]:
    """Try for a few semaphores in turn, and count what comes of it."""
    from django_distlock import LockError, acquire_lock

    outcomes: Counter[str] = Counter(granted=0, refused=0, errors=0)
    start.wait(60)
    for iteration in range(ITERATIONS):
        try:
            lease = acquire_lock(f"semaphore {iteration % SEMAPHORES}")
            if lease:
                lease.release()
            outcomes["granted" if lease else "refused"] += 1
        except LockError as error:
            outcomes["errors"] += 1
            print(error)
    return outcomes


if __name__ == "__main__":
    main()
