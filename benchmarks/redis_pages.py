"""The cost of a page of Redis's locks: of 100 and of 10,000 locks, alone and among other keys.

The databases take turns, so that a busy moment of the machine hits all; a ratio is taken within a
round, and its median and quartiles are over the rounds.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from django.conf import settings
from rich.console import Console

from benchmarks import stores
from benchmarks.pair import ratios, times
from tests.support.redis_servers import fill

if TYPE_CHECKING:
    from collections.abc import Callable

LOCK = '{"owner":"#","token":#,"acquired_at":#,"ttl":6000000,"holder":"host pid # MainThread"}'
FEW, MANY, AMONG_OTHERS = "100 locks", "10,000", "10,000 and 100,000 others"
CONTENTS = {FEW: (100, 0), MANY: (10_000, 0), AMONG_OTHERS: (10_000, 100_000)}

KINDS = "", ", search"

console = Console()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    stores.add_redis_options(parser)
    parser.add_argument("--rounds", type=int, default=40, help="default: %(default)s")
    options = parser.parse_args()
    with stores.redis(options) as server:
        console.print(stores.describe(stores.REDIS))
        pages: dict[str, Callable[[], None]] = {}
        location = settings.CACHES["default"]["LOCATION"].removesuffix("/0")
        for db, (name, (locks, others)) in enumerate(CONTENTS.items()):
            fill(server, locks, "SET", "distlock:{job:#}", LOCK, "PX", "6000000", db=db)
            fill(server, locks, "SET", "distlock:{job:#}:token", "#", "EX", "86400", db=db)
            fill(server, others, "SET", ":1:session:#", "x", db=db)
            pages |= {f"{name}{kind}": page for kind, page in kinds(f"{location}/{db}").items()}
        batches: dict[str, list[float]] = {name: [] for name in pages}
        for number in range(options.rounds + 1):
            for name, page in pages.items():
                started = time.perf_counter()
                page()
                if number:  # not the first, which sends the scripts
                    batches[name].append(time.perf_counter() - started)
    more = MANY, AMONG_OTHERS
    compared = [(f"{many}{kind}", f"{FEW}{kind}") for many in more for kind in KINDS]
    console.print(times(batches), ratios(batches, compared))


def kinds(location: str) -> dict[str, Callable[[], None]]:
    """Return how to show the first page, and to search, in a database."""
    from django.test import override_settings

    from django_distlock import lock_backends
    from django_distlock.backends.operations import ListingStore
    from django_distlock.records import LockQuery

    caches = {"default": settings.CACHES["default"] | {"LOCATION": location}}
    with override_settings(CACHES=caches, DISTLOCK=dict(settings.DISTLOCK)):
        store = lock_backends["default"]
    assert isinstance(store, ListingStore)

    def show() -> None:
        assert len(store.page(LockQuery()).locks) == 100

    def search() -> None:
        assert store.page(LockQuery(search="b:99")).locks

    return dict(zip(KINDS, (show, search), strict=True))


if __name__ == "__main__":
    main()
