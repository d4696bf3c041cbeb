"""Runs acquire and release with the package of one checkout, as a worker of `checkouts`.

It uses nothing but the public API, which all checkouts have.
"""

from __future__ import annotations

import json
import sys
import time

import django
from django.conf import settings
from django.core.management import call_command


def main() -> None:
    """Read the settings from the first line, and answer each later one with the seconds it took."""
    settings.configure(**json.loads(sys.stdin.readline()))
    django.setup()
    for alias in settings.DATABASES:
        call_command("migrate", database=alias, verbosity=0)
    print(0, flush=True)
    # Not before Django is set up: importing models needs that.
    from django_distlock import acquire_lock, distributed_lock

    def pair(store: str) -> None:
        lease = acquire_lock("1234collectPayment", backend=store)
        assert lease
        assert lease.release()

    def block(store: str) -> None:
        with distributed_lock("1234collectPayment", backend=store):
            pass

    def collect(customer_id: int) -> int:
        return customer_id

    decorated = {
        store: distributed_lock("<customer_id>collectPayment", backend=store)(collect)
        for store in settings.DISTLOCK
    }

    def call(store: str) -> None:
        decorated[store](1234)

    kinds = {"pair": pair, "block": block, "call": call}
    for line in sys.stdin:
        kind, store, times = line.split()
        started = time.perf_counter()
        for _ in range(int(times)):
            kinds[kind](store)
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
